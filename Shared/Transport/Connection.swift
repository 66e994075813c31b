import CPlatform
import Messages
import Synchronization
import Tensors

/// One peer, and the calls that go both ways between it and this process.
///
/// A connection lives until ``close()``, until the peer goes away, or until the peer breaks the
/// protocol; then all its calls end with UNAVAILABLE. A thread of its own reads; writing happens
/// where the caller is. Neither blocks a task's thread.
public final class Connection: Sendable {
  /// Version of the protocol in `proto/control.proto`.
  static let version: UInt32 = 1
  static let maximumRank = 8

  enum Phase {
    /// The peer's hello has not come yet.
    case opening
    case open
    case closed(RPCError)
  }

  struct State {
    var phase = Phase.opening
    /// From the peer's hello.
    var peerAcceptsArena = false
    var peerWindow = 1
    /// The peer takes no new calls.
    var peerGoesAway = false
    /// This side takes no new calls.
    var goesAway = false
    var nextNumber: UInt64
    var outgoing: [UInt64: OutgoingCall] = [:]
    var incoming: [UInt64: IncomingCall] = [:]
    /// Handlers at work, those of calls that ended early included.
    var handlers = 0
    var arena: SendArena?
    /// The peer broke the protocol, or said so of us.
    var reason: RPCError?
    var endWaiters: [Waiter<Void>] = []
    var hasEnded = false
  }

  /// What the owner of a connection wants to hear of.
  struct Events: Sendable {
    /// The peer said hello; called once, on the connection's thread.
    var didOpen: @Sendable (Connection) -> Void = { _ in }
    /// Closed, and the descriptors given back.
    var didEnd: @Sendable (Connection) -> Void = { _ in }
  }

  /// The peer, for messages to people.
  public let peer: String
  let options: ConnectionOptions
  let router: Router
  let carrier: Carrier
  let outbox: Outbox
  let timers = TimerTable()
  /// Whether this side connected; its calls have odd numbers.
  let isInitiator: Bool
  /// Ends with the peer's hello.
  let ready = Waiter<Void>()
  let events: Events
  let state: Mutex<State>

  init(
    carrier: Carrier, isInitiator: Bool, options: ConnectionOptions, router: Router,
    events: Events = Events()
  ) {
    self.events = events
    self.carrier = carrier
    self.isInitiator = isInitiator
    self.options = options
    self.router = router
    peer = carrier.peer
    outbox = Outbox(carrier: carrier, limit: options.maximumQueuedBytes)
    state = Mutex(State(nextNumber: isInitiator ? 1 : 2))
  }

  /// Says hello, and starts the thread.
  func start() {
    let canReceiveArenas = carrier.kind == .unixSocket
    outbox.send(
      Frame(
        kind: .hello, version: Connection.version, acceptsArena: canReceiveArenas,
        streamWindow: UInt32(clamping: options.streamWindow)))
    addTimer(.after(options.handshakeTimeout)) { [weak self] in
      guard let self, self.state.withLock({ if case .opening = $0.phase { true } else { false } })
      else { return }
      self.end(RPCError(.unavailable, "\(self.peer) said no hello in time; is it a mesh service?"))
    }
    let body = Unmanaged.passRetained(ConnectionThread(self))
    let failure = wire_thread_start(
      "wire",
      { context in
        guard let context else { return }
        Unmanaged<ConnectionThread>.fromOpaque(context).takeRetainedValue().run()
      }, body.toOpaque())
    if failure != 0 {
      let thread = body.takeRetainedValue()
      end(RPCError(.resourceExhausted, "no thread for a connection to \(peer)"))
      thread.finish()
    }
  }

  // MARK: - Life

  /// Connects and waits for the peer's hello.
  ///
  /// - Throws: ``RPCError``: UNAVAILABLE when nobody serves the endpoint, DEADLINE_EXCEEDED,
  ///   CANCELLED; ``TransportError`` when the endpoint cannot be connected to at all.
  public static func connect(
    to endpoint: Endpoint, options: ConnectionOptions = .init(), router: Router = .init(),
    deadline: Deadline
  ) async throws -> Connection {
    try await greet(
      Dialer.dial(endpoint, deadline: deadline), "connecting to \(endpoint)", options, router,
      deadline)
  }

  /// Speaks over two descriptors, such as the ends of another process's standard streams, and
  /// waits for the peer's hello. Takes the descriptors over, also when it throws.
  ///
  /// - Parameter peer: names the other side in errors.
  /// - Throws: ``RPCError``, as ``connect(to:options:router:deadline:)``.
  public static func connect(
    reading: Int32, writing: Int32, peer: String, options: ConnectionOptions = .init(),
    router: Router = .init(), deadline: Deadline
  ) async throws -> Connection {
    try await greet(
      Carrier(kind: .pipes, input: reading, output: writing, peer: peer),
      "speaking with \(peer)", options, router, deadline)
  }

  private static func greet(
    _ carrier: Carrier, _ what: String, _ options: ConnectionOptions, _ router: Router,
    _ deadline: Deadline
  ) async throws -> Connection {
    let connection = Connection(
      carrier: carrier, isInitiator: true, options: options, router: router)
    connection.start()
    let timer = connection.addTimer(deadline) {
      connection.ready.resolve(.failure(RPCError.deadlineExceeded(what)))
    }
    defer { connection.timers.remove(timer) }
    do {
      try await connection.ready.value(whenCancelled: .cancelled(what))
    } catch {
      connection.close()
      throw error
    }
    return connection
  }

  /// Two connections with each other, within this process.
  ///
  /// - Parameters:
  ///   - client: answers the calls that the second one makes.
  ///   - server: answers the calls that the first one makes.
  public static func pair(
    client: Router = .init(), server: Router = .init(), options: ConnectionOptions = .init()
  ) throws -> (client: Connection, server: Connection) {
    let (first, second) = try Dialer.pair()
    let client = Connection(carrier: first, isInitiator: true, options: options, router: client)
    let server = Connection(carrier: second, isInitiator: false, options: options, router: server)
    for connection in [client, server] {
      // Known before the hellos cross.
      connection.state.withLock {
        $0.peerAcceptsArena = true
        $0.peerWindow = options.streamWindow
      }
    }
    client.start()
    server.start()
    return (client, server)
  }

  /// Whether calls can still be made.
  public var isOpen: Bool {
    state.withLock {
      if case .closed = $0.phase { false } else { !$0.peerGoesAway }
    }
  }

  /// Why the connection is closed; nil while it is not.
  public var closeReason: RPCError? {
    state.withLock { if case .closed(let reason) = $0.phase { reason } else { nil } }
  }

  /// Ends the connection and, with UNAVAILABLE, all its calls.
  public func close() {
    end(RPCError(.unavailable, "the connection to \(peer) was closed on this side"))
  }

  /// Returns when the connection is closed and its descriptors are given back.
  public func closed() async {
    let waiter: Waiter<Void>? = state.withLock {
      guard !$0.hasEnded else { return nil }
      let waiter = Waiter<Void>()
      $0.endWaiters.append(waiter)
      return waiter
    }
    try? await waiter?.value(whenCancelled: .cancelled("waiting for a connection's end"))
  }

  /// Ends the connection for the given reason. Only the first reason counts.
  func end(_ reason: RPCError) {
    let old: State? = state.withLock { state in
      if case .closed = state.phase { return nil }
      let old = state
      state.phase = .closed(state.reason ?? reason)
      state.outgoing = [:]
      state.incoming = [:]
      state.arena = nil
      return old
    }
    guard let old else { return }
    let reason = old.reason ?? reason
    outbox.close()
    old.arena?.close(reason)
    ready.resolve(.failure(reason))
    for call in old.outgoing.values {
      _ = call.deliver(.ended(.failure(reason)), window: .max)
    }
    for call in old.incoming.values { call.cancel() }
    carrier.shutDown()
  }

  /// Ends the connection because the peer broke the protocol, and tells both sides.
  func end(_ violation: WireViolation) {
    let text = "\(peer) broke the protocol: \(violation)"
    guard closeReason == nil else { return }
    options.log("connection closed: \(text)")
    outbox.send(
      Frame(
        kind: .goAway,
        status: CallStatus(code: .internal, message: "protocol broken: \(violation)")))
    end(RPCError(.unavailable, text))
  }

  /// The thread has given the descriptors back.
  func didEnd() {
    timers.removeAll()
    // Whoever waits for the end finds it known everywhere.
    events.didEnd(self)
    let waiters = state.withLock { state in
      state.hasEnded = true
      defer { state.endWaiters = [] }
      return state.endWaiters
    }
    for waiter in waiters { waiter.resolve(.success(())) }
  }

  @discardableResult
  func addTimer(_ deadline: Deadline, _ action: @escaping @Sendable () -> Void) -> UInt64 {
    let (entry, needsThread) = timers.add(deadline, action)
    if needsThread { carrier.wake() }
    return entry
  }

  // MARK: - Tensors

  /// A tensor for a call or reply on this connection, to be written in full.
  ///
  /// On a Unix socket it lies in the arena, and sending it copies nothing; once sent it must not
  /// be written any more. Elsewhere it lies on the heap. While the arena is full, waits until the
  /// peer gives tensors back.
  /// - Throws: ``RPCError``: RESOURCE_EXHAUSTED when the arena as a whole is too small,
  ///   DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE, INVALID_ARGUMENT for a shape that is none.
  public func allocate(
    _ type: ScalarType, _ shape: [Int], deadline: Deadline? = nil
  ) async throws -> Tensor {
    guard let count = try? Tensor.elementCount(shape),
      case let (byteCount, overflow) = count.multipliedReportingOverflow(by: type.byteCount),
      !overflow
    else { throw RPCError(.invalidArgument, "\(TensorError.invalidShape(shape))") }
    guard let arena = try sendArena() else { return Tensor(uninitialized: type, shape) }
    guard byteCount <= arena.byteCount else {
      throw RPCError(
        .resourceExhausted,
        "a tensor \(shape) of \(byteCount) bytes does not fit into the arena of"
          + " \(arena.byteCount) bytes; give the service a larger one")
    }
    let storage = try await allocate(byteCount, in: arena, deadline: deadline)
    return try Tensor(type, shape, storage: storage)
  }

  /// As ``allocate(_:_:deadline:)``, without waiting: nil where there is no room in the arena
  /// now, for callers that hold what others wait for.
  ///
  /// - Throws: ``RPCError``: UNAVAILABLE.
  public func allocateNow(_ type: ScalarType, _ shape: [Int]) throws -> Tensor? {
    guard let count = try? Tensor.elementCount(shape) else {
      throw RPCError(.invalidArgument, "\(TensorError.invalidShape(shape))")
    }
    guard let arena = try sendArena() else { return Tensor(uninitialized: type, shape) }
    guard let storage = try arena.allocateNow(count * type.byteCount) else { return nil }
    return try Tensor(type, shape, storage: storage)
  }

  func allocate(
    _ byteCount: Int, in arena: SendArena, deadline: Deadline?
  ) async throws -> Storage {
    if let storage = try arena.allocateNow(byteCount) { return storage }
    let what = "waiting for \(byteCount) bytes of the arena to \(peer)"
    let waiter = arena.request(byteCount)
    var timer: UInt64?
    if let deadline {
      timer = addTimer(deadline) { waiter.resolve(.failure(RPCError.deadlineExceeded(what))) }
    }
    defer { timers.remove(timer) }
    do {
      let offset = try await waiter.value(whenCancelled: .cancelled(what))
      return arena.storage(offset, byteCount)
    } catch {
      arena.requestAbandoned()
      throw error
    }
  }

  /// The arena, made at first use; nil where tensors follow their message in the stream.
  func sendArena() throws -> SendArena? {
    try state.withLock { state in
      if case .closed(let reason) = state.phase { throw reason }
      if let arena = state.arena { return arena }
      guard state.peerAcceptsArena, carrier.kind == .unixSocket, options.arenaBytes > 0 else {
        return nil
      }
      do {
        // The frame goes out before any that refers to the arena: it is sent under the lock.
        let arena = try SendArena(byteCount: options.arenaBytes) { descriptor, byteCount in
          outbox.send(
            Frame(kind: .arena, arenaByteCount: UInt64(byteCount)), descriptor: descriptor)
        }
        state.arena = arena
        return arena
      } catch {
        throw RPCError(.resourceExhausted, "no arena for tensors to \(peer): \(error)")
      }
    }
  }
}
