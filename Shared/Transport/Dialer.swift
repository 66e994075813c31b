import CPlatform
import Messages
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Makes the carrier of a connection to an endpoint.
enum Dialer {
  static func dial(_ endpoint: Endpoint, deadline: Deadline) async throws -> Carrier {
    switch endpoint {
    case .unix(let path): return try await dialUnix(path, endpoint, deadline)
    case .tcp(let host, let port): return try await dialTCP(host, port, endpoint, deadline)
    case .exec(let command): return try spawn(command, endpoint)
    case .stdio: throw TransportError.wrongSide(endpoint: "stdio", can: "served")
    }
  }

  static func pair() throws -> (Carrier, Carrier) {
    var descriptors: (Int32, Int32) = (-1, -1)
    let failure = withUnsafeMutableBytes(of: &descriptors) {
      wire_socket_pair($0.baseAddress?.assumingMemoryBound(to: Int32.self))
    }
    guard failure == 0 else {
      throw TransportError.system(what: "socketpair", errno: -failure)
    }
    let first: Carrier
    do {
      first = try Carrier(
        kind: .unixSocket, input: descriptors.0, output: descriptors.0, peer: "in-process server")
    } catch {
      close(descriptors.1)
      throw error
    }
    let second = try Carrier(
      kind: .unixSocket, input: descriptors.1, output: descriptors.1, peer: "in-process client")
    return (first, second)
  }

  /// The process at the other end of a Unix socket must run as this user.
  static func checkPeer(_ socket: Int32) throws -> String {
    var user = uid_t()
    var process = pid_t()
    let failure = wire_peer_user(socket, &user, &process)
    guard failure == 0 else { throw TransportError.system(what: "SO_PEERCRED", errno: -failure) }
    guard user == geteuid() else {
      throw RPCError(
        .permissionDenied, "process \(process) runs as user \(user), this one as \(geteuid())")
    }
    return "process \(process)"
  }

  // MARK: - Unix

  private static func dialUnix(
    _ path: String, _ endpoint: Endpoint, _ deadline: Deadline
  ) async throws -> Carrier {
    var address = sockaddr_un()
    guard wire_unix_address(path, &address) == 0 else {
      throw TransportError.pathTooLong(path: path, byteCount: path.utf8.count)
    }
    let number = wire_socket(AF_UNIX)
    guard number >= 0 else { throw TransportError.system(what: "socket", errno: -number) }
    do {
      while true {
        let result = withUnsafePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            connect(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
          }
        }
        if result == 0 { break }
        let error = errno
        // The server is behind with accepting.
        guard error == EAGAIN || error == EINTR else { throw unreachable(endpoint, error) }
        guard !deadline.isPassed else {
          throw RPCError.deadlineExceeded("connecting to \(endpoint)")
        }
        do {
          try await Task.sleep(for: .milliseconds(5))
        } catch {
          throw RPCError.cancelled("connecting to \(endpoint)")
        }
      }
      _ = try checkPeer(number)
    } catch {
      close(number)
      throw error
    }
    return try Carrier(kind: .unixSocket, input: number, output: number, peer: "\(endpoint)")
  }

  private static func unreachable(_ endpoint: Endpoint, _ error: Int32) -> RPCError {
    switch error {
    case ENOENT, ECONNREFUSED:
      RPCError(.unavailable, "nobody serves \(endpoint): \(String(cString: strerror(error)))")
    case EACCES, EPERM:
      RPCError(.permissionDenied, "\(endpoint): \(String(cString: strerror(error)))")
    default:
      RPCError(.unavailable, "connecting to \(endpoint): \(String(cString: strerror(error)))")
    }
  }

  // MARK: - TCP

  /// Resolving a name blocks, so it has a thread of its own.
  private static func dialTCP(
    _ host: String, _ port: UInt16, _ endpoint: Endpoint, _ deadline: Deadline
  ) async throws -> Carrier {
    let what = "connecting to \(endpoint)"
    let waiter = Waiter<Carrier>()
    let body = Unmanaged.passRetained(
      Thunk {
        let result = Result<Carrier, any Error> {
          try connectTCP(host, port, endpoint, deadline) { waiter.isResolved }
        }
        // Whoever asked may be gone: the carrier closes itself then.
        waiter.resolve(result)
      })
    let failure = wire_thread_start("wire-dial", Thunk.run, body.toOpaque())
    if failure != 0 {
      body.release()
      throw TransportError.system(what: "a thread for \(what)", errno: -failure)
    }
    return try await waiter.value(whenCancelled: .cancelled(what))
  }

  private static func connectTCP(
    _ host: String, _ port: UInt16, _ endpoint: Endpoint, _ deadline: Deadline,
    isAbandoned: () -> Bool
  ) throws -> Carrier {
    var lastError = ECONNREFUSED
    for address in try TCPAddress.resolve(host, port, toServe: false) {
      let number = wire_socket(address.family)
      guard number >= 0 else {
        lastError = -number
        continue
      }
      var error = address.withPointer { connect(number, $0, $1) } == 0 ? 0 : errno
      if error == EINPROGRESS {
        error = ETIMEDOUT
        while !isAbandoned() {
          guard !deadline.isPassed else {
            close(number)
            throw RPCError.deadlineExceeded("connecting to \(endpoint)")
          }
          var entry = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
          let timeout = min(100, (deadline.remaining.microseconds + 999) / 1000)
          guard poll(&entry, 1, Int32(timeout)) > 0 else { continue }
          var length = socklen_t(MemoryLayout<Int32>.size)
          getsockopt(number, SOL_SOCKET, SO_ERROR, &error, &length)
          break
        }
      }
      if error == 0 {
        _ = wire_no_delay(number)
        return try Carrier(kind: .tcpSocket, input: number, output: number, peer: "\(endpoint)")
      }
      close(number)
      lastError = error
    }
    throw unreachable(endpoint, lastError)
  }

  // MARK: - A command

  private static func spawn(_ command: String, _ endpoint: Endpoint) throws -> Carrier {
    let toChild = try Pipe()
    let fromChild = try Pipe()
    var process = pid_t()
    let failure = wire_spawn(
      "exec \(command)", toChild.reading.number, fromChild.writing.number, &process)
    guard failure == 0 else {
      throw TransportError.system(what: "running \(command)", errno: -failure)
    }
    let input = wire_duplicate(fromChild.reading.number)
    let output = wire_duplicate(toChild.writing.number)
    guard input >= 0, output >= 0 else {
      ChildProcess.end(process)
      throw TransportError.system(what: "dup", errno: -min(input, output))
    }
    return try Carrier(
      kind: .pipes, input: input, output: output, peer: "\(endpoint)", process: process)
  }
}

/// Both ends of a pipe, above the standard descriptors.
private struct Pipe {
  let reading: Descriptor
  let writing: Descriptor

  init() throws {
    var numbers: (Int32, Int32) = (-1, -1)
    let failure = withUnsafeMutableBytes(of: &numbers) {
      wire_pipe($0.baseAddress?.assumingMemoryBound(to: Int32.self))
    }
    guard failure == 0 else { throw TransportError.system(what: "pipe", errno: -failure) }
    let (first, second) = (Descriptor(numbers.0), Descriptor(numbers.1))
    guard first.number <= 2 || second.number <= 2 else {
      (reading, writing) = (first, second)
      return
    }
    let copies = (wire_duplicate(first.number), wire_duplicate(second.number))
    guard copies.0 >= 0, copies.1 >= 0 else {
      throw TransportError.system(what: "dup", errno: -min(copies.0, copies.1))
    }
    (reading, writing) = (Descriptor(copies.0), Descriptor(copies.1))
  }
}

/// A closure for a thread.
final class Thunk: Sendable {
  private let body: @Sendable () -> Void
  init(_ body: @escaping @Sendable () -> Void) { self.body = body }

  static let run: @convention(c) (UnsafeMutableRawPointer?) -> Void = { context in
    guard let context else { return }
    Unmanaged<Thunk>.fromOpaque(context).takeRetainedValue().body()
  }
}
