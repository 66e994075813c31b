import Messages
import Synchronization
import Tensors

/// Calls to one endpoint, over a connection that is made at first use and again after a loss.
///
/// A call that was under way when its connection was lost fails with UNAVAILABLE and is not
/// repeated: only the caller knows whether that is safe.
public final class Channel: Sendable {
  public struct Options: Sendable {
    public var connection = ConnectionOptions()
    /// Answers the peer's calls.
    public var router = Router()
    /// Pause after the first failed attempt; doubles up to `maximumBackoff`.
    public var backoff: Duration = .milliseconds(20)
    public var maximumBackoff: Duration = .seconds(1)
    /// Time for all attempts where the caller has no deadline.
    public var connectTimeout: Duration = .seconds(10)

    public init() {}
  }

  private struct State {
    var connection: Connection?
    /// Those who wait for the attempt that is being made.
    var waiters: [Waiter<Connection>] = []
    var attempt: Task<Void, Never>?
    var isClosed = false
  }

  public let endpoint: Endpoint
  private let options: Options
  private let state = Mutex(State())

  public init(_ endpoint: Endpoint, options: Options = .init()) {
    self.endpoint = endpoint
    self.options = options
  }

  deinit { close() }

  /// The connection; connects where there is none, trying again until the deadline.
  ///
  /// - Throws: ``RPCError``: the last attempt's, or CANCELLED; ``TransportError`` when the
  ///   endpoint cannot be connected to at all.
  public func connection(deadline: Deadline? = nil) async throws -> Connection {
    let deadline = deadline ?? .after(options.connectTimeout)
    var pause = options.backoff
    while true {
      do {
        return try await attempt(deadline)
      } catch let error as RPCError where error.code == .unavailable {
        guard !state.withLock({ $0.isClosed }) else { throw error }
        guard deadline.remaining > pause else { throw error }
        do {
          try await Task.sleep(for: pause)
        } catch {
          throw RPCError.cancelled("connecting to \(endpoint)")
        }
        pause = min(pause * 2, options.maximumBackoff)
      }
    }
  }

  /// One attempt, shared by all who want a connection now.
  private func attempt(_ deadline: Deadline) async throws -> Connection {
    let waiter = Waiter<Connection>()
    let open: Connection? = try state.withLock { state in
      guard !state.isClosed else {
        throw RPCError(.unavailable, "the channel to \(endpoint) is closed")
      }
      if let connection = state.connection, connection.isOpen { return connection }
      state.connection = nil
      state.waiters.append(waiter)
      if state.attempt == nil {
        state.attempt = Task { [weak self, endpoint, options] in
          let result: Result<Connection, any Error>
          do {
            result = .success(
              try await Connection.connect(
                to: endpoint, options: options.connection, router: options.router,
                deadline: .after(options.connectTimeout)))
          } catch {
            result = .failure(error)
          }
          guard let self else {
            try? result.get().close()
            return
          }
          self.attemptEnded(result)
        }
      }
      return nil
    }
    if let open { return open }
    let what = "connecting to \(endpoint)"
    let timer = Task {
      try? await Task.sleep(for: deadline.remaining)
      waiter.resolve(.failure(RPCError.deadlineExceeded(what)))
    }
    defer { timer.cancel() }
    return try await waiter.value(whenCancelled: .cancelled(what))
  }

  private func attemptEnded(_ result: Result<Connection, any Error>) {
    let (waiters, isClosed) = state.withLock { state in
      state.attempt = nil
      if !state.isClosed { state.connection = try? result.get() }
      defer { state.waiters = [] }
      return (state.waiters, state.isClosed)
    }
    if isClosed { try? result.get().close() }
    for waiter in waiters { waiter.resolve(result) }
  }

  /// As ``Connection/call(_:_:tensors:authority:deadline:)``, connecting first where needed.
  public func call<Request, Response>(
    _ method: Method<Request, Response>, _ request: Request, tensors: [Attachment] = [],
    authority: String? = nil, deadline: Deadline? = nil
  ) async throws -> Payload<Response> {
    try await connection(deadline: deadline).call(
      method, request, tensors: tensors, authority: authority, deadline: deadline)
  }

  /// As ``Connection/stream(_:_:tensors:authority:deadline:)``, connecting first where needed.
  public func stream<Request, Response>(
    _ method: Method<Request, Response>, _ request: Request, tensors: [Attachment] = [],
    authority: String? = nil, deadline: Deadline? = nil
  ) -> ResponseStream<Response> {
    precondition(method.streams, "\(method.name) does not stream")
    let payload = RawPayload(message: request.encoded(), tensors: tensors)
    return ResponseStream(method: method.name) { [self] in
      try await connection(deadline: deadline).begin(
        method.name, payload, authority: authority, deadline: deadline)
    }
  }

  /// As ``Connection/allocate(_:_:deadline:)``. The tensor belongs to the connection open now:
  /// after a loss it is still valid, and is copied when it is sent.
  public func allocate(
    _ type: ScalarType, _ shape: [Int], deadline: Deadline? = nil
  ) async throws -> Tensor {
    try await connection(deadline: deadline).allocate(type, shape, deadline: deadline)
  }

  /// Closes the connection; later calls fail with UNAVAILABLE.
  public func close() {
    let (connection, attempt) = state.withLock { state in
      state.isClosed = true
      defer { state.connection = nil }
      return (state.connection, state.attempt)
    }
    attempt?.cancel()
    connection?.close()
  }
}
