import Glibc
import Synchronization

/// Makes a pair of pipes reachable as a Unix socket, for one connection: bytes go to and fro,
/// unread.
final class StreamRelay: Sendable {
  let path: String
  /// nil: stopped or closed, and its number perhaps somebody else's.
  private let listener: Mutex<Int32?>
  private let reading: Int32
  private let writing: Int32

  /// Listens at `path`; takes over the pipes, closing them at their end or on failure.
  ///
  /// - Throws: ``MeshError/socketPathTooLong(path:limit:)``,
  ///   ``MeshError/system(operation:reason:)``.
  static func start(path: String, reading: Int32, writing: Int32) throws(MeshError) -> StreamRelay {
    do {
      let listener = try listen(at: path)
      let relay = StreamRelay(
        path: path, listener: listener, reading: reading, writing: writing)
      Threads.start(name: "relay") { relay.run(listener) }
      return relay
    } catch {
      close(reading)
      close(writing)
      throw error
    }
  }

  private init(path: String, listener: Int32, reading: Int32, writing: Int32) {
    self.path = path
    self.listener = Mutex(listener)
    self.reading = reading
    self.writing = writing
  }

  /// Takes no connection any more. One that stands ends with either side.
  func stop() {
    listener.withLock { listener in
      guard let number = listener else { return }
      shutdown(number, Int32(SHUT_RDWR))
      unlink(path)
      listener = nil
    }
  }

  private static func listen(at path: String) throws(MeshError) -> Int32 {
    try RunDirectory.checkLength(ofAddress: "unix:" + path)
    let descriptor = socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else {
      throw .system(operation: "making a socket", reason: SystemReason.text(errno))
    }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    unlink(path)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0, Glibc.listen(descriptor, 1) == 0 else {
      let code = errno
      close(descriptor)
      throw .system(operation: "listening at \(path)", reason: SystemReason.text(code))
    }
    return descriptor
  }

  /// - Parameter number: the listener's, which only this thread closes.
  private func run(_ number: Int32) {
    let connection = accept(number, nil, nil)
    if connection >= 0 { _ = fcntl(connection, F_SETFD, FD_CLOEXEC) }
    listener.withLock { listener in
      close(number)
      // After a stop, another relay may have the path.
      if listener != nil { unlink(path) }
      listener = nil
    }
    guard connection >= 0 else {
      close(reading)
      close(writing)
      return
    }
    // The other direction, on a thread of its own, holds a copy, so that neither closes what
    // the other still uses.
    let back = fcntl(connection, F_DUPFD_CLOEXEC, 3)
    Threads.start(name: "relay") { [reading] in
      if back >= 0 {
        Self.pump(from: reading, to: back)
        shutdown(back, Int32(SHUT_RDWR))
        close(back)
      }
      close(reading)
    }
    Self.pump(from: connection, to: writing)
    shutdown(connection, Int32(SHUT_RDWR))
    close(connection)
    close(writing)
  }

  private static func pump(from source: Int32, to sink: Int32) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
    defer { buffer.deallocate() }
    while true {
      let count = read(source, buffer.baseAddress, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return }
      var sent = 0
      while sent < count {
        let result = write(sink, buffer.baseAddress?.advanced(by: sent), count - sent)
        if result < 0, errno == EINTR { continue }
        guard result > 0 else { return }
        sent += result
      }
    }
  }
}
