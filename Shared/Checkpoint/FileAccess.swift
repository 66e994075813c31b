#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// An open regular file, closed with the value's end.
struct OpenFile: ~Copyable {
  let path: String
  let descriptor: Int32
  let identity: FileIdentity

  /// Opens a regular file for reading. Never blocks, whatever `path` names.
  ///
  /// - Throws: ``CheckpointError/missingFile(_:)``, ``CheckpointError/notAFile(_:)``,
  ///   ``CheckpointError/unreadable(file:reason:)``.
  init(reading path: String) throws {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      if errno == ENOENT || errno == ENOTDIR { throw CheckpointError.missingFile(path) }
      throw CheckpointError.unreadable(file: path, reason: systemReason())
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let reason = systemReason()
      close(descriptor)
      throw CheckpointError.unreadable(file: path, reason: reason)
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw CheckpointError.notAFile(path)
    }
    self.path = path
    self.descriptor = descriptor
    identity = FileIdentity(status)
  }

  deinit { close(descriptor) }

  var byteCount: Int { identity.byteCount }

  /// Whether the file still is what it was when opened.
  var isUnchanged: Bool {
    var status = stat()
    return fstat(descriptor, &status) == 0 && FileIdentity(status) == identity
  }

  /// `count` bytes from `offset` on.
  ///
  /// - Throws: ``CheckpointError/unreadable(file:reason:)``, also when the file has fewer.
  func bytes(at offset: Int, count: Int) throws -> [UInt8] {
    try [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
      try read(
        at: offset,
        into: UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count))
      done = count
    }
  }

  /// As many bytes from `offset` on as there is room for.
  ///
  /// - Throws: what ``bytes(at:count:)`` throws.
  func read(at offset: Int, into bytes: UnsafeMutableRawBufferPointer) throws {
    var done = 0
    while done < bytes.count, let base = bytes.baseAddress {
      let got = pread(descriptor, base + done, bytes.count - done, off_t(offset + done))
      if got < 0, errno == EINTR { continue }
      guard got > 0 else {
        let reason = got == 0 ? "it ends at byte \(offset + done)" : systemReason()
        throw CheckpointError.unreadable(file: path, reason: reason)
      }
      done += got
    }
  }
}

/// What tells a file from another that took its place.
struct FileIdentity: Equatable, Sendable, CustomStringConvertible {
  let byteCount: Int
  private let seconds: Int
  private let nanoseconds: Int

  init(_ status: stat) {
    byteCount = Int(status.st_size)
    seconds = Int(status.st_mtim.tv_sec)
    nanoseconds = Int(status.st_mtim.tv_nsec)
  }

  /// To be compared with another's.
  var description: String { "\(byteCount) bytes, \(seconds) s \(nanoseconds) ns" }
}

/// A whole small file. Never blocks, whatever `path` names, and holds no more than `limit` bytes.
///
/// - Throws: ``CheckpointError/tooLarge(file:byteCount:limit:)``,
///   ``CheckpointError/missingFile(_:)``, ``CheckpointError/notAFile(_:)``,
///   ``CheckpointError/unreadable(file:reason:)``.
public func readFile(_ path: String, limit: Int) throws -> [UInt8] {
  let file = try OpenFile(reading: path)
  guard file.byteCount <= limit else {
    throw CheckpointError.tooLarge(file: path, byteCount: file.byteCount, limit: limit)
  }
  return try file.bytes(at: 0, count: file.byteCount)
}

/// - Throws: ``CheckpointError/missingFolder(_:)``, ``CheckpointError/notAFolder(_:)``.
func requireFolder(_ path: String) throws {
  var status = stat()
  guard stat(path, &status) == 0 else { throw CheckpointError.missingFolder(path) }
  guard status.st_mode & S_IFMT == S_IFDIR else { throw CheckpointError.notAFolder(path) }
}

func isFolder(_ path: String) -> Bool {
  var status = stat()
  return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

func fileExists(_ path: String) -> Bool { access(path, F_OK) == 0 }

/// Names in a folder, sorted; empty when it cannot be read.
public func folderEntries(_ path: String) -> [String] {
  guard let folder = opendir(path) else { return [] }
  defer { closedir(folder) }
  var names: [String] = []
  while let entry = readdir(folder) {
    let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// What the last failed system call says.
func systemReason() -> String { String(cString: strerror(errno)) }
