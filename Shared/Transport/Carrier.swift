import CPlatform
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A file descriptor that is closed with its last reference.
final class Descriptor: Sendable {
  let number: Int32
  init(_ number: Int32) { self.number = number }
  deinit { closeDescriptor(number) }
}

private func closeDescriptor(_ number: Int32) { _ = close(number) }

/// The byte stream under a connection: a socket, or a pair of pipes, without blocking.
final class Carrier: Sendable {
  enum Kind: Sendable {
    case unixSocket, tcpSocket, pipes
  }

  let kind: Kind
  let input: Int32
  let output: Int32
  /// The peer, for messages to people.
  let peer: String
  /// The process at the other end of an `exec:` endpoint.
  let process: pid_t?
  /// Becomes readable when the connection's thread has something new to look at.
  private let wakeDescriptor: Int32
  private let isOpen = Mutex(true)

  /// Takes over the descriptors.
  /// - Throws: ``TransportError``; the descriptors are closed then.
  init(kind: Kind, input: Int32, output: Int32, peer: String, process: pid_t? = nil) throws {
    self.kind = kind
    self.input = input
    self.output = output
    self.peer = peer
    self.process = process
    wakeDescriptor = wire_event_create()
    guard wakeDescriptor >= 0 else {
      let error = -wakeDescriptor
      closeDescriptor(input)
      if output != input { closeDescriptor(output) }
      isOpen.withLock { $0 = false }
      throw TransportError.system(what: "eventfd", errno: error)
    }
    if kind == .pipes {
      wire_ignore_broken_pipes()
      _ = wire_set_nonblocking(input, 1)
      _ = wire_set_nonblocking(output, 1)
      // More room means fewer wakings for a big tensor; refused where pipes are rationed.
      _ = wire_pipe_grow(output, 1 << 20)
    }
  }

  deinit { close() }

  func wake() {
    isOpen.withLock {
      guard $0 else { return }
      var one: UInt64 = 1
      _ = write(wakeDescriptor, &one, 8)
    }
  }

  /// Ends the stream for the peer and for a thread that waits for it, but keeps the descriptors.
  func shutDown() {
    isOpen.withLock {
      guard $0 else { return }
      if kind != .pipes { _ = shutdown(output, Int32(SHUT_RDWR)) }
    }
    wake()
  }

  /// Only the connection's thread may call this, once nobody sends any more.
  func close() {
    isOpen.withLock {
      guard $0 else { return }
      $0 = false
      closeDescriptor(input)
      if output != input { closeDescriptor(output) }
      closeDescriptor(wakeDescriptor)
    }
  }

  struct Readiness {
    var input = false
    var output = false
  }

  /// Blocks until there is input, room for output (if asked for), a waking, or the deadline.
  func wait(forOutput: Bool, until deadline: Deadline?) -> Readiness {
    var timeout: Int32 = -1
    if let deadline {
      timeout = Int32(clamping: (deadline.remaining.microseconds + 999) / 1000)
    }
    let readable = Int16(POLLIN)
    let writable = Int16(POLLOUT)
    let shared = input == output
    return withUnsafeTemporaryAllocation(of: pollfd.self, capacity: 3) { polls in
      polls.initializeElement(
        at: 0,
        to: pollfd(
          fd: input, events: shared && forOutput ? readable | writable : readable, revents: 0))
      polls.initializeElement(at: 1, to: pollfd(fd: wakeDescriptor, events: readable, revents: 0))
      polls.initializeElement(
        at: 2, to: pollfd(fd: !shared && forOutput ? output : -1, events: writable, revents: 0))
      guard poll(polls.baseAddress, 3, timeout) > 0 else { return Readiness() }
      if polls[1].revents != 0 {
        var count: UInt64 = 0
        _ = read(wakeDescriptor, &count, 8)
      }
      return Readiness(
        input: polls[0].revents & ~writable != 0,
        output: polls[2].revents != 0 || (shared && polls[0].revents & writable != 0))
    }
  }

  /// What one attempt to read or write came to.
  enum Outcome {
    case bytes(Int)
    case wouldBlock
    case ended
    case failed(Int32)
  }

  /// - Parameter passed: appended with descriptors that came along; the caller owns them.
  func receive(_ buffer: UnsafeMutableRawBufferPointer, passed: inout [Descriptor]) -> Outcome {
    let count: Int
    switch kind {
    case .pipes:
      let result = read(input, buffer.baseAddress, buffer.count)
      count = result < 0 ? -Int(errno) : result
    case .tcpSocket, .unixSocket:
      var number: Int32 = 0
      count = withUnsafeTemporaryAllocation(of: Int32.self, capacity: 4) { descriptors in
        let result = wire_receive(
          input, buffer.baseAddress, buffer.count, descriptors.baseAddress, 4, &number)
        for index in 0..<Int(number) { passed.append(Descriptor(descriptors[index])) }
        return result
      }
    }
    return outcome(count, zeroMeansEnd: true)
  }

  func send(_ parts: UnsafeBufferPointer<iovec>, passing descriptor: Descriptor?) -> Outcome {
    let count: Int
    switch kind {
    case .pipes:
      let result = writev(output, parts.baseAddress, Int32(parts.count))
      count = result < 0 ? -Int(errno) : result
    case .tcpSocket, .unixSocket:
      count = wire_send(
        output, parts.baseAddress, Int32(parts.count), descriptor?.number ?? -1)
    }
    return outcome(count, zeroMeansEnd: false)
  }

  private func outcome(_ count: Int, zeroMeansEnd: Bool) -> Outcome {
    if count > 0 { return .bytes(count) }
    if count == 0 { return zeroMeansEnd ? .ended : .wouldBlock }
    switch Int32(-count) {
    case EAGAIN, EINTR: return .wouldBlock
    case EPIPE, ECONNRESET: return .ended
    case let error: return .failed(error)
    }
  }
}
