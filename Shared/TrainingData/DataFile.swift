#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A regular file, open for reading by several threads at once.
final class DataFile: Sendable {
  enum Failure: Error {
    case missing
    case unreadable(String)
  }

  let path: String
  let byteCount: Int
  private let descriptor: Int32
  private let modified: [Int]

  /// Opens `path`. Never blocks, whatever it names.
  ///
  /// - Throws: ``Failure``.
  init(_ path: String) throws {
    // A path with a zero byte would name another file than it says.
    guard !path.utf8.contains(0) else { throw Failure.unreadable("its name holds a zero byte") }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      if errno == ENOENT || errno == ENOTDIR { throw Failure.missing }
      throw Failure.unreadable(String(cString: strerror(errno)))
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw Failure.unreadable("it is not a regular file")
    }
    self.path = path
    self.descriptor = descriptor
    byteCount = Int(status.st_size)
    modified = DataFile.identity(status)
  }

  deinit { close(descriptor) }

  /// Whether the file still is what it was when opened.
  var isUnchanged: Bool {
    var status = stat()
    return fstat(descriptor, &status) == 0 && DataFile.identity(status) == modified
  }

  private static func identity(_ status: stat) -> [Int] {
    [Int(status.st_size), Int(status.st_mtim.tv_sec), Int(status.st_mtim.tv_nsec)]
  }

  /// `count` bytes from `offset` on; fewer where the file ends.
  ///
  /// - Throws: ``Failure``.
  func bytes(at offset: Int, count: Int) throws -> [UInt8] {
    var problem: Int32 = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
      while done < count {
        guard let base = buffer.baseAddress else { return }
        let got = pread(descriptor, base + done, count - done, off_t(offset + done))
        if got < 0 && errno == EINTR { continue }
        if got < 0 { problem = errno }
        if got <= 0 { return }
        done += got
      }
    }
    guard problem == 0 else { throw Failure.unreadable(String(cString: strerror(problem))) }
    return bytes
  }

  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// The folder that a path lies in.
  static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// As Python's `os.path.join`: an absolute second path stands alone.
  static func join(_ folder: String, _ path: String) -> String {
    if path.hasPrefix("/") || folder.isEmpty { return path }
    if path.isEmpty { return folder }
    return folder.hasSuffix("/") ? folder + path : "\(folder)/\(path)"
  }
}
