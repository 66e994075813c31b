import Tensors

/// What is written to a file piece by piece: a tensor, or one that is computed meanwhile.
public protocol TensorSource: Sendable {
  var shape: [Int] { get }

  /// Some elements, in row-major order, of the type of the file, or float32 or bfloat16.
  func elements(_ range: Range<Int>) -> Tensor
}

extension Tensor: TensorSource {
  public func elements(_ range: Range<Int>) -> Tensor { reshaped([count]).rows(range) }
}

/// Writes one file of a checkpoint: tensors that a stage holds, in the types they are stored in.
///
/// A file appears under its name when all of it is on disk. Nothing but a piece of a tensor is
/// held beside what is given.
public enum ShardFile {
  public typealias Item = (name: String, tensor: any TensorSource, storedType: ScalarType)
  /// A parameter's state after some updates, all float32. `value` is there where the files of
  /// weights do not hold the parameter in float32.
  public typealias State = (
    name: String, value: Tensor?, firstMoment: Tensor, secondMoment: Tensor
  )

  /// Elements that are converted at a time.
  private static let piece = 1 << 18

  /// Writes weights. float32 becomes bfloat16 by rounding to the nearest, ties to even.
  ///
  /// - Returns: bytes of the file.
  /// - Throws: ``CheckpointError``.
  @discardableResult
  public static func write(_ items: [Item], to path: String) throws -> Int {
    let writer = try SafetensorsWriter(
      path: path,
      entries: items.map { .init($0.name, $0.storedType, $0.tensor.shape) })
    for item in items { try write(item.tensor, as: item.name, item.storedType, to: writer) }
    try writer.commit()
    return writer.byteCount
  }

  /// Writes moments and masters.
  ///
  /// - Returns: bytes of the file.
  /// - Throws: ``CheckpointError``.
  @discardableResult
  public static func write(_ states: [State], to path: String) throws -> Int {
    var items: [Item] = []
    for state in states {
      items.append((OptimizerNames.firstMoment(state.name), state.firstMoment, .float32))
      items.append((OptimizerNames.secondMoment(state.name), state.secondMoment, .float32))
      if let value = state.value {
        items.append((OptimizerNames.master(state.name), value, .float32))
      }
    }
    return try write(items, to: path)
  }

  /// Writes a tensor, or the part of one that begins at an element of it.
  static func write(
    _ tensor: any TensorSource, as name: String, from element: Int = 0, _ type: ScalarType,
    to writer: SafetensorsWriter
  ) throws {
    let count = tensor.shape.reduce(1, *)
    for start in stride(from: 0, to: count, by: piece) {
      let elements = tensor.elements(start..<min(start + piece, count))
      precondition(
        elements.scalarType == type || elements.scalarType.isFloat && type.isFloat,
        "\(name): \(elements.scalarType) as \(type)")
      let part = elements.converted(to: type)
      try withExtendedLifetime(part.storage) {
        try writer.write(
          name, at: (element + start) * type.byteCount,
          UnsafeRawBufferPointer(start: part.baseAddress, count: part.byteCount))
      }
    }
  }
}

extension ScalarType {
  var isFloat: Bool { self == .float32 || self == .bfloat16 }
}

extension Tensor {
  /// A float32 or bfloat16 tensor as the other of the two types; itself if it is of the type.
  func converted(to type: ScalarType) -> Tensor {
    if scalarType == type { return self }
    let result = Tensor(uninitialized: type, shape)
    switch (scalarType, type) {
    case (.float32, .bfloat16):
      withElements(of: UInt32.self) { source in
        result.withElements(of: UInt16.self) { target in
          for index in 0..<source.count { target[index] = bfloat16(source[index]) }
        }
      }
    case (.bfloat16, .float32):
      withElements(of: UInt16.self) { source in
        result.withElements(of: UInt32.self) { target in
          for index in 0..<source.count { target[index] = UInt32(source[index]) << 16 }
        }
      }
    default:
      preconditionFailure("\(scalarType) as \(type)")
    }
    return result
  }
}

/// The bfloat16 nearest to a float32, ties to even; what is not a number stays so.
@inline(__always)
func bfloat16(_ bits: UInt32) -> UInt16 {
  let rounded = (bits &+ 0x7FFF &+ (bits &>> 16 & 1)) &>> 16
  let quiet = bits &>> 16 | 0x40
  return UInt16(truncatingIfNeeded: bits & 0x7FFF_FFFF > 0x7F80_0000 ? quiet : rounded)
}
