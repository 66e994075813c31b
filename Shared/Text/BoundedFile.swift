#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Reads whole regular files of bounded size.
enum BoundedFile {
  /// The file's bytes, or nil when there is no such file.
  ///
  /// - Throws: ``TextError/unreadableFile(path:reason:)``,
  ///   ``TextError/oversizedFile(path:bytes:limit:)``.
  static func read(_ path: String, limit: Int) throws -> [UInt8]? {
    // Without O_NONBLOCK, opening a pipe would wait for its other end.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      if errno == ENOENT { return nil }
      throw TextError.unreadableFile(path: path, reason: String(cString: strerror(errno)))
    }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      throw TextError.unreadableFile(path: path, reason: "it is not a regular file")
    }
    let size = Int(status.st_size)
    guard size <= limit else {
      throw TextError.oversizedFile(path: path, bytes: size, limit: limit)
    }
    var failure: Int32 = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
      while count < size {
        let got = Glibc.read(descriptor, buffer.baseAddress?.advanced(by: count), size - count)
        if got < 0 && errno == EINTR { continue }
        if got < 0 { failure = errno }
        if got <= 0 { break }
        count += got
      }
    }
    guard failure == 0 else {
      throw TextError.unreadableFile(path: path, reason: String(cString: strerror(failure)))
    }
    return bytes
  }
}
