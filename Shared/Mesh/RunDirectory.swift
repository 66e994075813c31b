import Glibc

/// The private directory where a mesh keeps its sockets, its lock and its state.
public struct RunDirectory: Equatable, Sendable {
  public let path: String

  /// Longest path that fits a socket address (unix(7)), without the zero at its end.
  static let socketPathLimit = 107

  /// `CHIASM_RUN`, else `$XDG_RUNTIME_DIR/chiasm`, else `/tmp/chiasm-<uid>`.
  public static func standardPath(_ environment: [String: String]) -> String {
    if let path = environment["CHIASM_RUN"], !path.isEmpty { return path }
    if let path = environment["XDG_RUNTIME_DIR"], path.first == "/" { return path + "/chiasm" }
    return "/tmp/chiasm-\(getuid())"
  }

  public var statePath: String { path + "/mesh.json" }
  var lockPath: String { path + "/lock" }

  public init(path: String) {
    self.path = path
  }

  public func socketPath(_ service: String) -> String { "\(path)/\(service).sock" }

  /// Makes the directory, and its parents, unless they are there; then sees that nobody else
  /// may write there.
  ///
  /// - Throws: ``MeshError/unusableDirectory(path:reason:)``,
  ///   ``MeshError/directoryNotPrivate(path:reason:)``, ``MeshError/noSpace(path:)``.
  public func prepare() throws(MeshError) {
    try create(path)
    var info = stat()
    // In a directory that all may write to, somebody else's link would lead anywhere.
    guard lstat(path, &info) == 0 else { throw failure(errno) }
    guard info.st_mode & S_IFMT != S_IFLNK || info.st_uid == geteuid() else {
      throw .directoryNotPrivate(path: path, reason: "is a link of user \(info.st_uid)")
    }
    guard stat(path, &info) == 0 else { throw failure(errno) }
    guard info.st_mode & S_IFMT == S_IFDIR else {
      throw .unusableDirectory(path: path, reason: "it is not a directory")
    }
    guard info.st_uid == geteuid() else {
      throw .directoryNotPrivate(path: path, reason: "belongs to user \(info.st_uid)")
    }
    guard info.st_mode & 0o077 == 0 else {
      throw .directoryNotPrivate(
        path: path, reason: "is open to others (mode \(String(info.st_mode & 0o777, radix: 8)))")
    }
    guard access(path, W_OK | X_OK) == 0 else { throw failure(errno) }
  }

  private func create(_ path: String) throws(MeshError) {
    if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
    guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex
    else { throw failure(errno) }
    try create(String(path[..<slash]))
    guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw failure(errno) }
  }

  private func failure(_ code: Int32) -> MeshError {
    code == ENOSPC || code == EDQUOT
      ? .noSpace(path: path) : .unusableDirectory(path: path, reason: SystemReason.text(code))
  }

  /// Writes a file so that readers see the old or the new content, never a part.
  ///
  /// - Throws: ``MeshError/noSpace(path:)``, ``MeshError/unusableDirectory(path:reason:)``.
  func replace(_ file: String, with bytes: [UInt8]) throws(MeshError) {
    let temporary = file + ".new"
    do {
      try write(bytes, to: temporary)
    } catch {
      unlink(temporary)
      throw error
    }
    guard rename(temporary, file) == 0 else {
      let code = errno
      unlink(temporary)
      throw failure(code)
    }
  }

  func write(_ bytes: [UInt8], to file: String) throws(MeshError) {
    let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw failure(errno) }
    var written = 0
    while written < bytes.count {
      let count = bytes.withUnsafeBytes {
        Glibc.write(descriptor, $0.baseAddress?.advanced(by: written), bytes.count - written)
      }
      if count < 0 {
        let code = errno
        if code == EINTR { continue }
        close(descriptor)
        throw code == ENOSPC || code == EDQUOT ? .noSpace(path: file) : failure(code)
      }
      written += count
    }
    // File systems over a network may report a full disk only now.
    guard close(descriptor) == 0 else { throw .noSpace(path: file) }
  }

  /// Removes every socket in the directory, and the locks that listeners keep beside them. Only
  /// for the holder of the directory's own lock.
  func removeSockets() {
    guard let directory = opendir(path) else { return }
    defer { closedir(directory) }
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      var info = stat()
      let file = "\(path)/\(name)"
      guard lstat(file, &info) == 0 else { continue }
      if info.st_mode & S_IFMT == S_IFSOCK || name.hasSuffix(".sock.lock") { unlink(file) }
    }
  }

  /// - Throws: ``MeshError/socketPathTooLong(path:limit:)`` for an address `unix:PATH` whose
  ///   path the system does not take.
  static func checkLength(ofAddress address: String) throws(MeshError) {
    guard address.hasPrefix("unix:") else { return }
    let path = String(address.dropFirst(5))
    guard path.utf8.count <= socketPathLimit else {
      throw .socketPathTooLong(path: path, limit: socketPathLimit)
    }
  }
}

/// The claim of one supervisor on a run directory. The system lifts it with the process.
final class RunLock: Sendable {
  private let directory: RunDirectory
  private let descriptor: Int32

  private init(directory: RunDirectory, descriptor: Int32) {
    self.directory = directory
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  /// - Throws: ``MeshError/meshRunning(directory:process:)``,
  ///   ``MeshError/unusableDirectory(path:reason:)``, ``MeshError/noSpace(path:)``.
  static func take(_ directory: RunDirectory) throws(MeshError) -> RunLock {
    while true {
      let descriptor = open(
        directory.lockPath, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
      guard descriptor >= 0 else {
        let code = errno
        throw code == ENOSPC || code == EDQUOT
          ? .noSpace(path: directory.lockPath)
          : .unusableDirectory(path: directory.path, reason: SystemReason.text(code))
      }
      guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
        let code = errno
        close(descriptor)
        if code == EINTR { continue }
        guard code == EWOULDBLOCK else {
          throw .unusableDirectory(path: directory.path, reason: SystemReason.text(code))
        }
        throw .meshRunning(directory: directory.path, process: holder(directory))
      }
      // The file may have been removed by its last holder between open and flock.
      var opened = stat()
      var named = stat()
      guard fstat(descriptor, &opened) == 0, stat(directory.lockPath, &named) == 0,
        opened.st_ino == named.st_ino, opened.st_dev == named.st_dev
      else {
        close(descriptor)
        continue
      }
      let text = Array("\(getpid())\n".utf8)
      guard ftruncate(descriptor, 0) == 0,
        pwrite(descriptor, text, text.count, 0) == text.count
      else {
        close(descriptor)
        throw .noSpace(path: directory.lockPath)
      }
      return RunLock(directory: directory, descriptor: descriptor)
    }
  }

  /// Gives the directory back.
  func release() {
    unlink(directory.lockPath)
    flock(descriptor, LOCK_UN)
  }

  /// The process that wrote its id into the lock; 0 when it has not yet.
  static func holder(_ directory: RunDirectory) -> Int {
    guard let bytes = try? BoundedFile.read(directory.lockPath, limit: 32) else { return 0 }
    return Int(String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)) ?? 0
  }

  /// Whether some process holds the directory's lock.
  static func isHeld(_ directory: RunDirectory) -> Bool {
    let descriptor = open(directory.lockPath, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    if flock(descriptor, LOCK_SH | LOCK_NB) == 0 {
      flock(descriptor, LOCK_UN)
      return false
    }
    return errno == EWOULDBLOCK
  }
}
