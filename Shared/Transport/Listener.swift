import CPlatform
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A socket that takes connections.
final class Listener: Sendable {
  /// Where it listens: with the port it got, if it asked for any.
  let endpoint: Endpoint
  let socket: Descriptor
  let kind: Carrier.Kind
  /// Held for as long as the Unix socket is ours.
  private let lock: Descriptor?
  private let isOpen = Mutex(true)

  init(_ endpoint: Endpoint) throws {
    switch endpoint {
    case .unix(let path):
      (socket, lock) = try Listener.bindUnix(path)
      self.endpoint = endpoint
      kind = .unixSocket
    case .tcp(let host, let port):
      socket = try Listener.bindTCP(host, port, endpoint)
      lock = nil
      self.endpoint = .tcp(host: host, port: TCPAddress.port(of: socket.number) ?? port)
      kind = .tcpSocket
    case .exec, .stdio:
      throw TransportError.wrongSide(endpoint: "\(endpoint)", can: "connected to")
    }
  }

  deinit { close() }

  /// Takes the socket's name away, so that nobody finds it any more.
  func close() {
    guard
      isOpen.withLock({ isOpen in
        defer { isOpen = false }; return isOpen
      })
    else { return }
    if case .unix(let path) = endpoint {
      unlink(path)
      unlink(Listener.lockPath(path))
    }
    _ = shutdown(socket.number, Int32(SHUT_RDWR))
  }

  private static func lockPath(_ path: String) -> String { path + ".lock" }

  private static func bindUnix(_ path: String) throws -> (Descriptor, Descriptor) {
    var address = sockaddr_un()
    guard wire_unix_address(path, &address) == 0 else {
      throw TransportError.pathTooLong(path: path, byteCount: path.utf8.count)
    }
    try preparePrivateDirectory(of: path)
    let lock = try lockPath(path, address: path)
    // We have the lock: a socket left there belongs to a dead server.
    var status = stat()
    if lstat(path, &status) == 0 {
      guard status.st_mode & S_IFMT == S_IFSOCK else { throw TransportError.notASocket(path: path) }
      unlink(path)
    }
    let number = wire_socket(AF_UNIX)
    guard number >= 0 else { throw TransportError.system(what: "socket", errno: -number) }
    let socket = Descriptor(number)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0, chmod(path, 0o600) == 0, listen(number, backlog) == 0 else {
      throw TransportError.system(what: "binding unix:\(path)", errno: errno)
    }
    return (socket, lock)
  }

  /// The lock that says who serves a path. The kernel lets go of it when its process dies.
  private static func lockPath(_ path: String, address: String) throws -> Descriptor {
    let file = lockPath(path)
    while true {
      let number = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
      guard number >= 0 else { throw TransportError.system(what: "opening \(file)", errno: errno) }
      let lock = Descriptor(number)
      guard flock(number, LOCK_EX | LOCK_NB) == 0 else {
        guard errno == EWOULDBLOCK else {
          throw TransportError.system(what: "locking \(file)", errno: errno)
        }
        throw TransportError.addressInUse("unix:\(address)")
      }
      // The last owner may have removed the file between our opening and our locking it.
      var held = stat()
      var named = stat()
      if fstat(number, &held) == 0, stat(file, &named) == 0, held.st_ino == named.st_ino,
        held.st_dev == named.st_dev
      {
        return lock
      }
    }
  }

  /// Makes the directory of a path, or checks that nobody else may enter it.
  private static func preparePrivateDirectory(of path: String) throws {
    let directory: String
    if let slash = path.lastIndex(of: "/") {
      directory = slash == path.startIndex ? "/" : String(path[..<slash])
    } else {
      directory = "."
    }
    try makeDirectory(directory)
    var status = stat()
    guard stat(directory, &status) == 0 else {
      throw TransportError.system(what: directory, errno: errno)
    }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      throw TransportError.directoryNotPrivate(path: directory, found: "is no directory")
    }
    guard status.st_uid == geteuid() else {
      throw TransportError.directoryNotPrivate(
        path: directory, found: "belongs to user \(status.st_uid)")
    }
    guard status.st_mode & 0o077 == 0 else {
      throw TransportError.directoryNotPrivate(
        path: directory, found: "has mode 0\(String(status.st_mode & 0o7777, radix: 8))")
    }
  }

  private static func makeDirectory(_ path: String) throws {
    if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
    let error = errno
    guard error == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
      throw TransportError.system(what: "making directory \(path)", errno: error)
    }
    try makeDirectory(String(path[..<slash]))
    guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
      throw TransportError.system(what: "making directory \(path)", errno: errno)
    }
  }

  private static func bindTCP(
    _ host: String, _ port: UInt16, _ endpoint: Endpoint
  ) throws -> Descriptor {
    var lastError = EADDRNOTAVAIL
    for address in try TCPAddress.resolve(host, port, toServe: true) {
      let number = wire_socket(address.family)
      guard number >= 0 else {
        lastError = -number
        continue
      }
      let socket = Descriptor(number)
      var on: Int32 = 1
      setsockopt(number, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
      if address.withPointer({ bind(number, $0, $1) }) == 0, listen(number, backlog) == 0 {
        return socket
      }
      lastError = errno
    }
    guard lastError != EADDRINUSE else { throw TransportError.addressInUse("\(endpoint)") }
    throw TransportError.system(what: "binding \(endpoint)", errno: lastError)
  }

  private static let backlog: Int32 = 128
}
