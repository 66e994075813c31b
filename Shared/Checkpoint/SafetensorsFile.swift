import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// One safetensors file. The header is read and checked at once; the data is mapped when a
/// tensor is asked for, read-only and shared with every process that maps the same file, and
/// stays mapped as long as a tensor over it lives.
///
/// The bytes of a tensor must not be written to. Replace a file by renaming another over it:
/// one that is cut while it is mapped ends the process that touches the missing part.
public final class SafetensorsFile: Sendable {
  public let path: String
  private let file: OpenFile
  private let header: SafetensorsHeader
  private let mapping = Mutex(Mapping())

  private static let maximumCopy = 4 << 30

  private struct Mapping {
    weak var storage: Storage?
  }

  /// - Throws: ``CheckpointError`` when the file is missing, is no regular file, or its header
  ///   is not that of a safetensors file of its size.
  public init(path: String) throws {
    let file = try OpenFile(reading: path)
    header = try SafetensorsHeader(reading: file)
    self.file = file
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
  func entry(_ name: String) -> SafetensorsWriter.Entry? {
    guard let entry = header.entries[name],
      let type = ScalarType(safetensorsName: entry.scalarType)
    else { return nil }
    return SafetensorsWriter.Entry(name, type, entry.shape)
  }

  /// Bytes of all tensors together.
  public var dataByteCount: Int { file.byteCount - header.dataOffset }

  /// A tensor over the mapped file, or over a copy on the heap when its bytes are not aligned
  /// to its scalar type.
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
    let storage = try mapped()
    let offset = header.dataOffset + entry.begin
    let byteCount = entry.end - entry.begin
    guard offset.isMultiple(of: scalarType.byteCount) else {
      // A sparse file of a few bytes may claim any size; only mapping is free.
      guard byteCount <= SafetensorsFile.maximumCopy else {
        throw CheckpointError.misaligned(file: path, tensor: name, byteCount: byteCount)
      }
      let copy = Storage(uninitialized: byteCount)
      withExtendedLifetime(storage) {
        copy.base.copyMemory(from: storage.base + offset, byteCount: byteCount)
      }
      return try Tensor(scalarType, entry.shape, storage: copy)
    }
    advise(storage, offset, byteCount)
    return try Tensor(scalarType, entry.shape, storage: storage, byteOffset: offset)
  }

  /// A weight of a shape and of type float32 or bfloat16.
  ///
  /// - Throws: what ``tensor(_:neededFor:)`` throws, and
  ///   ``CheckpointError/shapeMismatch(file:tensor:expected:found:neededFor:)``.
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
    guard entry.scalarType == "F32" || entry.scalarType == "BF16" else {
      throw CheckpointError.unsupportedScalarType(
        file: path, tensor: name, found: entry.scalarType, expected: "BF16 or F32")
    }
    guard entry.shape == shape else {
      throw CheckpointError.shapeMismatch(
        file: path, tensor: name, expected: shape, found: entry.shape, neededFor: neededFor)
    }
  }

  private func mapped() throws -> Storage {
    try mapping.withLock { mapping in
      if let storage = mapping.storage { return storage }
      guard file.isUnchanged else { throw CheckpointError.changedWhileInUse(file: path) }
      let byteCount = file.byteCount
      let base = mmap(nil, byteCount, PROT_READ, MAP_SHARED, file.descriptor, 0)
      guard let base, base != MAP_FAILED else {
        throw CheckpointError.unreadable(file: path, reason: systemReason())
      }
      let address = UInt(bitPattern: base)
      let storage = Storage(base: base, byteCount: byteCount) {
        munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
      }
      mapping.storage = storage
      return storage
    }
  }

  /// Starts reading a tensor's pages from disk; a tensor asked for is about to be used.
  private func advise(_ storage: Storage, _ offset: Int, _ byteCount: Int) {
    let page = Int(getpagesize())
    let start = offset / page * page
    madvise(storage.base + start, offset + byteCount - start, MADV_WILLNEED)
  }
}
