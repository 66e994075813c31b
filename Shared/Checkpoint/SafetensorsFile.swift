import Tensors

/// One safetensors file. The header is read and checked at once; the data is mapped when a
/// tensor is asked for, read-only and shared with every process that maps the same file, and
/// stays mapped as long as a tensor over it lives.
///
/// The bytes of a tensor must not be written to. Replace a file by renaming another over it:
/// one that is cut while it is mapped ends the process that touches the missing part.
public final class SafetensorsFile: Sendable {
  public let path: String
  private let mapping: MappedFile
  private let header: SafetensorsHeader

  /// - Throws: ``CheckpointError`` when the file is missing, is no regular file, or its header
  ///   is not that of a safetensors file of its size.
  public init(path: String) throws {
    let file = try OpenFile(reading: path)
    header = try SafetensorsHeader(reading: file)
    mapping = MappedFile(file)
    self.path = path
  }

  /// Names of the tensors, sorted.
  public var names: [String] { header.entries.keys.sorted() }

  /// The strings under `__metadata__`.
  public var metadata: [String: String] { header.metadata }

  public func contains(_ name: String) -> Bool { header.entries[name] != nil }

  /// The shape of a tensor, from the header alone.
  public func shape(_ name: String) -> [Int]? { header.entries[name]?.shape }

  /// A tensor's type and shape, from the header alone; nil also for types that ``ScalarType``
  /// does not have.
  public func entry(_ name: String) -> SafetensorsWriter.Entry? {
    guard let entry = header.entries[name],
      let type = ScalarType(safetensorsName: entry.scalarType)
    else { return nil }
    var found = SafetensorsWriter.Entry(name, type, entry.shape)
    found.panels = header.panels[name]
    return found
  }

  /// What a tensor is that holds panels, from the header alone; nil for one that does not.
  public func panelLayout(_ name: String) -> PanelLayout? { header.panels[name] }

  /// Bytes of all tensors together.
  public var dataByteCount: Int { mapping.file.byteCount - header.dataOffset }

  /// A tensor over the mapped file, or over a copy on the heap when its bytes are not aligned
  /// to its scalar type, or panels not to a cache line.
  ///
  /// - Parameter neededFor: who asks, for the error.
  /// - Throws: ``CheckpointError/missingTensor(file:tensor:neededFor:)``,
  ///   ``CheckpointError/unsupportedScalarType(file:tensor:found:expected:)``,
  ///   ``CheckpointError/misaligned(file:tensor:byteCount:)``,
  ///   ``CheckpointError/changedWhileInUse(file:)``, ``CheckpointError/unreadable(file:reason:)``.
  public func tensor(_ name: String, neededFor: String? = nil) throws -> Tensor {
    guard let entry = header.entries[name] else {
      throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: neededFor)
    }
    guard let scalarType = ScalarType(safetensorsName: entry.scalarType) else {
      throw CheckpointError.unsupportedScalarType(
        file: path, tensor: name, found: entry.scalarType, expected: "BF16 or F32")
    }
    return try mapping.tensor(
      scalarType, entry.shape, at: header.dataOffset + entry.begin,
      byteCount: entry.end - entry.begin, name: name,
      alignment: header.panels[name] == nil ? scalarType.byteCount : PanelLayout.alignment)
  }

  /// Reads some of a tensor's bytes without mapping them: the file may shrink meanwhile.
  ///
  /// - Throws: ``CheckpointError``, also when the file ends before them.
  func read(_ name: String, at offset: Int, into bytes: UnsafeMutableRawBufferPointer) throws {
    guard let entry = header.entries[name] else {
      throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: nil)
    }
    precondition(offset >= 0 && offset + bytes.count <= entry.end - entry.begin)
    try mapping.file.read(at: header.dataOffset + entry.begin + offset, into: bytes)
  }

  /// A weight of a shape and of type float32 or bfloat16.
  ///
  /// - Throws: what ``tensor(_:neededFor:)`` throws, and
  ///   ``CheckpointError/shapeMismatch(file:tensor:expected:found:neededFor:)``,
  ///   ``CheckpointError/packedWeight(file:tensor:layout:)``.
  public func tensor(_ name: String, shape: [Int], neededFor: String) throws -> Tensor {
    try requireWeight(name, shape: shape, neededFor: neededFor)
    return try tensor(name, neededFor: neededFor)
  }

  /// Checks by the header alone what ``tensor(_:shape:neededFor:)`` checks.
  ///
  /// - Throws: what that throws, but for errors of mapping.
  public func requireWeight(_ name: String, shape: [Int], neededFor: String) throws {
    guard let entry = header.entries[name] else {
      throw CheckpointError.missingTensor(file: path, tensor: name, neededFor: neededFor)
    }
    if let layout = header.panels[name] {
      throw CheckpointError.packedWeight(file: path, tensor: name, layout: "\(layout)")
    }
    guard entry.scalarType == "F32" || entry.scalarType == "BF16" else {
      throw CheckpointError.unsupportedScalarType(
        file: path, tensor: name, found: entry.scalarType, expected: "BF16 or F32")
    }
    guard entry.shape == shape else {
      throw CheckpointError.shapeMismatch(
        file: path, tensor: name, expected: shape, found: entry.shape, neededFor: neededFor)
    }
  }
}
