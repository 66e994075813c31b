#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import Messages
import Tensors
import Transport

/// A picture file on its way into a request.
public enum PictureFile {
  /// The file's bytes as uint8 [n].
  ///
  /// - Throws: INVALID_ARGUMENT for what is no readable file of a picture's size.
  public static func read(_ path: String, limit: Int = GatewayLimits().pictureBytes) throws
    -> Attachment
  {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw problem(path, String(cString: strerror(errno))) }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      throw problem(path, String(cString: strerror(errno)))
    }
    guard status.st_mode & S_IFMT == S_IFREG else { throw problem(path, "it is not a file") }
    let size = Int(status.st_size)
    guard size <= limit else {
      throw problem(path, "it has \(size) bytes, at most \(limit) are taken")
    }
    let bytes = Tensor(uninitialized: .uint8, [size])
    var filled = 0
    while filled < size {
      let count = Glibc.read(descriptor, bytes.baseAddress + filled, size - filled)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw problem(path, "it ended after \(filled) of \(size) bytes") }
      filled += count
    }
    return Attachment(bytes, name: "picture")
  }

  private static func problem(_ path: String, _ reason: String) -> RPCError {
    RPCError(.invalidArgument, "the picture \(path) cannot be read: \(reason)")
  }
}
