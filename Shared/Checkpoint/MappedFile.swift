import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A file of tensors, mapped when one of them is asked for: read-only, shared with every process
/// that maps the same file, and as long as a tensor over it lives.
final class MappedFile: Sendable {
  let file: OpenFile
  private let mapping = Mutex(Mapping())

  private static let maximumCopy = 4 << 30

  private struct Mapping {
    weak var storage: Storage?
  }

  init(_ file: consuming OpenFile) { self.file = file }

  var path: String { file.path }

  /// A tensor at a place in the file, which lies inside it; a copy on the heap where its bytes
  /// are not aligned to its scalar type.
  ///
  /// - Parameter alignment: what its place has to be a multiple of, if not of its scalar type's
  ///   size.
  /// - Throws: ``CheckpointError/misaligned(file:tensor:byteCount:)``,
  ///   ``CheckpointError/changedWhileInUse(file:)``, ``CheckpointError/unreadable(file:reason:)``.
  func tensor(
    _ scalarType: ScalarType, _ shape: [Int], at offset: Int, byteCount: Int, name: String,
    alignment: Int? = nil
  ) throws -> Tensor {
    let storage = try mapped()
    guard offset.isMultiple(of: alignment ?? scalarType.byteCount) else {
      // A sparse file of a few bytes may claim any size; only mapping is free.
      guard byteCount <= MappedFile.maximumCopy else {
        throw CheckpointError.misaligned(file: path, tensor: name, byteCount: byteCount)
      }
      let copy = Storage(uninitialized: byteCount)
      withExtendedLifetime(storage) {
        copy.base.copyMemory(from: storage.base + offset, byteCount: byteCount)
      }
      return try Tensor(scalarType, shape, storage: copy)
    }
    advise(storage, offset, byteCount)
    return try Tensor(scalarType, shape, storage: storage, byteOffset: offset)
  }

  /// The whole file.
  ///
  /// - Throws: ``CheckpointError/changedWhileInUse(file:)``,
  ///   ``CheckpointError/unreadable(file:reason:)``.
  func mapped() throws -> Storage {
    try mapping.withLock { mapping in
      if let storage = mapping.storage { return storage }
      guard file.isUnchanged else { throw CheckpointError.changedWhileInUse(file: path) }
      let byteCount = file.byteCount
      let base = mmap(nil, byteCount, PROT_READ, MAP_SHARED, file.descriptor, 0)
      guard let base, base != MAP_FAILED else {
        throw CheckpointError.unreadable(file: path, reason: systemReason())
      }
      let address = UInt(bitPattern: base)
      let storage = Storage(base: base, byteCount: byteCount, isMappedFile: true) {
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
