import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A file that appears under its name complete or not at all: written beside its place, flushed,
/// then renamed over what was there. Without ``commit()`` nothing of it remains.
final class AtomicFile: Sendable {
  let path: String
  private let byteCount: Int
  private let temporaryPath: String
  private let descriptor: Int32
  private let isCommitted = Atomic(false)

  private static let serial = Atomic(0)

  /// Claims `byteCount` bytes of disk at once, so that a full disk shows before the work.
  ///
  /// - Throws: ``CheckpointError/diskFull(file:byteCount:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``.
  init(path: String, byteCount: Int) throws {
    self.path = path
    self.byteCount = byteCount
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    let folder = parts.count > 1 ? parts.dropLast().joined(separator: "/") + "/" : ""
    let number = AtomicFile.serial.add(1, ordering: .relaxed).newValue
    temporaryPath = "\(folder).\(parts.last ?? "").\(getpid()).\(number).tmp"

    if let free = freeBytes(in: folder.isEmpty ? "." : folder), byteCount > free {
      throw CheckpointError.diskFull(file: path, byteCount: byteCount)
    }
    descriptor = open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw CheckpointError.unwritable(file: path, reason: systemReason())
    }
    // Where room cannot be claimed ahead, the writes find out.
    if byteCount > 0, isFull(posix_fallocate(descriptor, 0, off_t(byteCount))) {
      throw CheckpointError.diskFull(file: path, byteCount: byteCount)
    }
  }

  deinit {
    guard descriptor >= 0 else { return }
    close(descriptor)
    if !isCommitted.load(ordering: .relaxed) { unlink(temporaryPath) }
  }

  /// - Throws: ``CheckpointError/diskFull(file:byteCount:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
    try writeFully(bytes, at: offset, to: descriptor, path: path, byteCount: byteCount)
  }

  /// - Throws: ``CheckpointError/unwritable(file:reason:)``,
  ///   ``CheckpointError/diskFull(file:byteCount:)``.
  func commit() throws {
    guard fsync(descriptor) == 0, rename(temporaryPath, path) == 0 else {
      throw isFull(errno)
        ? CheckpointError.diskFull(file: path, byteCount: byteCount)
        : CheckpointError.unwritable(file: path, reason: systemReason())
    }
    isCommitted.store(true, ordering: .relaxed)
    flushFolder(parentFolder(of: path))
  }

  /// Writes a whole small file.
  ///
  /// - Throws: what ``init(path:byteCount:)`` and ``commit()`` throw.
  static func write(_ bytes: [UInt8], to path: String) throws {
    let file = try AtomicFile(path: path, byteCount: bytes.count)
    try bytes.withUnsafeBytes { try file.write($0, at: 0) }
    try file.commit()
  }
}

/// - Parameters:
///   - path: what errors name.
///   - byteCount: the size of the whole file, for the error.
func writeFully(
  _ bytes: UnsafeRawBufferPointer, at offset: Int, to descriptor: Int32, path: String,
  byteCount: Int
) throws {
  var done = 0
  while done < bytes.count, let base = bytes.baseAddress {
    let count = pwrite(descriptor, base + done, bytes.count - done, off_t(offset + done))
    if count < 0, errno == EINTR { continue }
    guard count > 0 else {
      throw count < 0 && isFull(errno)
        ? CheckpointError.diskFull(file: path, byteCount: byteCount)
        : CheckpointError.unwritable(file: path, reason: systemReason())
    }
    done += count
  }
}

/// Whether an error code says that no more can be written.
func isFull(_ code: Int32) -> Bool { code == ENOSPC || code == EDQUOT || code == EFBIG }
