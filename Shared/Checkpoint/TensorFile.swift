import Tensors

/// A file of named tensors, in one of the formats that checkpoints come in.
protocol TensorFile: Sendable {
  var path: String { get }
  /// Names of the tensors, sorted.
  var names: [String] { get }

  /// Shape and type that a tensor would have; nil where there is none, or of an unknown type.
  func entry(_ name: String) -> SafetensorsWriter.Entry?

  /// What a tensor is that holds panels; nil for one that does not.
  func panelLayout(_ name: String) -> PanelLayout?

  /// A tensor of any type that ``ScalarType`` has.
  func tensor(_ name: String, neededFor: String?) throws -> Tensor

  /// Some of a tensor's bytes, beginning at one of them.
  func read(_ name: String, at offset: Int, into bytes: UnsafeMutableRawBufferPointer) throws

  /// Checks without reading data that a weight is there in its shape, as float32, bfloat16 or a
  /// type that becomes one of them.
  func requireWeight(_ name: String, shape: [Int], neededFor: String) throws
}

extension TensorFile {
  func panelLayout(_ name: String) -> PanelLayout? { nil }

  func read(_ name: String, at offset: Int, into bytes: UnsafeMutableRawBufferPointer) throws {
    let tensor = try tensor(name, neededFor: nil)
    precondition(offset >= 0 && offset + bytes.count <= tensor.byteCount)
    withExtendedLifetime(tensor.storage) {
      bytes.copyMemory(
        from: UnsafeRawBufferPointer(start: tensor.baseAddress + offset, count: bytes.count))
    }
  }

  /// A weight of a shape and of type float32 or bfloat16.
  ///
  /// - Throws: ``CheckpointError``.
  func tensor(_ name: String, shape: [Int], neededFor: String) throws -> Tensor {
    try requireWeight(name, shape: shape, neededFor: neededFor)
    return try tensor(name, neededFor: neededFor)
  }
}

extension SafetensorsFile: TensorFile {}

/// Whether any product of a shape's dimensions, and so any stride and byte count, can be computed:
/// also where a dimension of 0 makes the shape empty.
///
/// - Parameter elementSize: of an element, in what sizes are counted in.
func isMeasurable(_ shape: [Int], elementSize: Int) -> Bool {
  var size = elementSize
  for dimension in shape {
    let (product, overflow) = size.multipliedReportingOverflow(by: max(dimension, 1))
    guard dimension >= 0, !overflow else { return false }
    size = product
  }
  return true
}
