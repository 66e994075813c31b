import Messages

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Ways in which an endpoint cannot be named, served or reached.
public enum TransportError: Error, Equatable, StatusConvertible, CustomStringConvertible {
  /// A text names no endpoint.
  case invalidEndpoint(String)
  /// A socket's path does not fit into a socket address.
  case pathTooLong(path: String, byteCount: Int)
  /// A socket's directory belongs to somebody else, or others may enter it.
  case directoryNotPrivate(path: String, found: String)
  /// Something that is not a socket stands where the socket should be.
  case notASocket(path: String)
  /// A live server has the address.
  case addressInUse(String)
  /// An endpoint of this kind can only be connected to, or only be served.
  case wrongSide(endpoint: String, can: String)
  /// A system call failed.
  case system(what: String, errno: Int32)

  public var statusCode: StatusCode {
    switch self {
    case .invalidEndpoint, .pathTooLong, .notASocket, .wrongSide: .invalidArgument
    case .directoryNotPrivate: .permissionDenied
    case .addressInUse: .alreadyExists
    case .system(_, let errno):
      switch errno {
      case EACCES, EPERM, EROFS: .permissionDenied
      case ENOSPC, ENOMEM, EMFILE, ENFILE, EDQUOT: .resourceExhausted
      case ENAMETOOLONG: .invalidArgument
      default: .unavailable
      }
    }
  }

  public var description: String {
    switch self {
    case .invalidEndpoint(let text):
      "\"\(text)\" names no endpoint; write unix:PATH, tcp:HOST:PORT, stdio or exec:COMMAND"
    case .pathTooLong(let path, let byteCount):
      "socket path \(path) has \(byteCount) bytes, a socket address holds 107; choose a shorter"
        + " directory"
    case .directoryNotPrivate(let path, let found):
      "directory \(path) \(found); sockets need a directory of this user alone (mode 0700)"
    case .notASocket(let path):
      "\(path) exists and is not a socket; remove it, or choose another path"
    case .addressInUse(let address):
      "another mesh is using \(address); stop it, or choose another address"
    case .wrongSide(let endpoint, let can):
      "\(endpoint) can only be \(can)"
    case .system(let what, let errno):
      "\(what): \(String(cString: strerror(errno)))"
    }
  }
}
