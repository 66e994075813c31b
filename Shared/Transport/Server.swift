import CPlatform
import Messages
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

public struct ServerOptions: Sendable {
  public var connection = ConnectionOptions()
  /// More connections than this are refused.
  public var maximumConnections = 256
  /// Told of each peer once it has said hello, for calls the other way. Must not block.
  public var didConnect: @Sendable (Connection) -> Void = { _ in }

  public init() {}
}

/// Serves a router's methods at an endpoint.
///
/// Over `stdio` it serves the one peer at this process's standard input and output, which it
/// takes away from the rest of the process: what is printed goes to standard error from then on.
public final class Server: Sendable {
  private struct State {
    var connections: [ObjectIdentifier: Connection] = [:]
    var isShuttingDown = false
    var isRunning = false
  }

  /// Where the server listens, with the port it got where it asked for port 0.
  public let endpoint: Endpoint
  private let listener: Listener?
  private let router: Router
  private let options: ServerOptions
  /// Wakes the accepting thread.
  private let wakeDescriptor: Descriptor
  private let finished = Waiter<Void>()
  private let state = Mutex(State())

  /// Takes the address: from now on peers can connect, and wait for ``run()``.
  /// - Throws: ``TransportError``.
  public init(_ endpoint: Endpoint, router: Router, options: ServerOptions = .init()) throws {
    let number = wire_event_create()
    guard number >= 0 else { throw TransportError.system(what: "eventfd", errno: -number) }
    wakeDescriptor = Descriptor(number)
    if case .stdio = endpoint {
      listener = nil
      self.endpoint = endpoint
    } else {
      let listener = try Listener(endpoint)
      self.listener = listener
      self.endpoint = listener.endpoint
    }
    self.router = router
    self.options = options
  }

  /// Serves until ``shutDown(grace:)``, the end of the one peer over `stdio`, or cancellation,
  /// which ends all calls at once.
  public func run() async throws {
    let isFirst = state.withLock { state in
      defer { state.isRunning = true }
      return !state.isRunning
    }
    precondition(isFirst, "a server runs once")
    if let listener {
      let body = Unmanaged.passRetained(Thunk { [self] in accept(from: listener) })
      let failure = wire_thread_start("wire-accept", Thunk.run, body.toOpaque())
      if failure != 0 {
        body.release()
        throw TransportError.system(what: "a thread to accept connections", errno: -failure)
      }
    } else {
      take(try Server.standardStreams())
    }
    do {
      try await finished.value(whenCancelled: .cancelled("the server"))
    } catch {
      // In a task of its own, since this one's cancellation would cut the waiting short.
      await Task { await shutDown(grace: .zero) }.value
    }
  }

  /// Takes no new calls, lets those at work finish for up to `grace`, and ends the connections.
  public func shutDown(grace: Duration) async {
    let deadline = Deadline.after(grace)
    let connections = state.withLock {
      $0.isShuttingDown = true
      return Array($0.connections.values)
    }
    listener?.close()
    wake()
    for connection in connections { connection.goAway() }
    while !deadline.isPassed, connections.contains(where: \.isBusy) {
      do { try await Task.sleep(for: .milliseconds(5)) } catch { break }
    }
    for connection in connections { connection.close() }
    for connection in connections { await connection.closed() }
    finished.resolve(.success(()))
  }

  /// Connections open now.
  public var connectionCount: Int { state.withLock { $0.connections.count } }

  private func wake() {
    var one: UInt64 = 1
    _ = write(wakeDescriptor.number, &one, 8)
  }

  private func accept(from listener: Listener) {
    let log = options.connection.log
    while !state.withLock({ $0.isShuttingDown }) {
      var entries = [
        pollfd(fd: listener.socket.number, events: Int16(POLLIN), revents: 0),
        pollfd(fd: wakeDescriptor.number, events: Int16(POLLIN), revents: 0),
      ]
      guard poll(&entries, 2, -1) > 0, entries[1].revents == 0 else { continue }
      let number = wire_accept(listener.socket.number)
      guard number >= 0 else {
        switch -number {
        case EAGAIN, ECONNABORTED, EINVAL: break
        case let error:
          log("\(endpoint): accepting a connection: \(String(cString: strerror(error)))")
          // Out of descriptors or memory: others may give some back.
          usleep(100_000)
        }
        continue
      }
      let peer: String
      do {
        if listener.kind == .unixSocket {
          peer = try Dialer.checkPeer(number)
        } else {
          _ = wire_no_delay(number)
          peer = "a peer"
        }
        guard connectionCount < options.maximumConnections else {
          throw RPCError(.resourceExhausted, "\(options.maximumConnections) connections are open")
        }
      } catch {
        close(number)
        log("\(endpoint): a connection was refused: \(error)")
        continue
      }
      do {
        take(
          try Carrier(
            kind: listener.kind, input: number, output: number, peer: "\(peer) at \(endpoint)"))
      } catch {
        log("\(endpoint): a connection was refused: \(error)")
      }
    }
  }

  private func take(_ carrier: Carrier) {
    let events = Connection.Events(
      didOpen: options.didConnect,
      didEnd: { [weak self] connection in
        guard let self else { return }
        self.state.withLock { $0.connections[ObjectIdentifier(connection)] = nil }
        if self.listener == nil { self.finished.resolve(.success(())) }
      })
    let connection = Connection(
      carrier: carrier, isInitiator: false, options: options.connection, router: router,
      events: events)
    let isShuttingDown = state.withLock {
      $0.connections[ObjectIdentifier(connection)] = connection
      return $0.isShuttingDown
    }
    connection.start()
    if isShuttingDown { connection.close() }
  }

  /// Standard input and output, taken away from everything else in the process.
  private static func standardStreams() throws -> Carrier {
    let input = wire_duplicate(STDIN_FILENO)
    guard input >= 0 else { throw TransportError.system(what: "standard input", errno: -input) }
    let output = wire_duplicate(STDOUT_FILENO)
    guard output >= 0 else {
      close(input)
      throw TransportError.system(what: "standard output", errno: -output)
    }
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 {
      dup2(null, STDIN_FILENO)
      close(null)
    }
    dup2(STDERR_FILENO, STDOUT_FILENO)
    return try Carrier(kind: .pipes, input: input, output: output, peer: "the peer at stdio")
  }
}

extension Connection {
  /// Tells the peer that this side takes no new calls.
  func goAway() {
    state.withLock { $0.goesAway = true }
    outbox.send(Frame(kind: .goAway))
  }

  /// Whether the peer's calls are at work, or answers not yet sent.
  var isBusy: Bool {
    state.withLock {
      if case .closed = $0.phase { false } else { !$0.incoming.isEmpty }
    } || outbox.hasQueued
  }
}
