import Messages

/// What a handler knows about its call.
///
/// The handler's task is cancelled when the caller cancels, when the deadline passes, and when
/// the connection ends.
public struct CallContext: Sendable {
  public let method: String
  public let deadline: Deadline?
  /// Which of several services behind this connection the caller means.
  public let authority: String?
  /// Where the call came from; calls can be made on it the other way.
  public let connection: Connection
}

/// Sends the responses of a streaming call. One task at a time may write.
public struct ResponseWriter<Response: Message>: Sendable {
  let raw: RawResponseWriter

  /// Sends one response; waits while the receiver is behind.
  /// - Throws: ``RPCError`` when the call or its connection is over.
  public func write(_ message: Response, tensors: [Attachment] = []) async throws {
    try await raw.write(RawPayload(message: message.encoded(), tensors: tensors))
  }

  public func write(_ payload: Payload<Response>) async throws {
    try await raw.write(RawPayload(payload))
  }
}

/// Sends responses that are already encoded.
public struct RawResponseWriter: Sendable {
  let connection: Connection
  let call: IncomingCall

  /// Sends one response; waits while the receiver is behind.
  /// - Throws: ``RPCError`` when the call or its connection is over.
  public func write(_ payload: RawPayload) async throws {
    try await connection.respond(call, payload)
  }
}

/// Which handler answers which method.
public struct Router: Sendable {
  typealias Handler =
    @Sendable (RawParcel, CallContext, RawResponseWriter) async throws -> RawPayload?

  enum Route: Sendable {
    case task(Handler, on: (any TaskExecutor)?)
    case immediate(@Sendable (RawPayload, CallContext) throws -> RawPayload)
  }

  private var routes: [String: Route] = [:]
  private var fallback: Handler?

  public init() {}

  /// Answers a unary method.
  ///
  /// - Parameter executor: where the handler runs, if not on Swift's own threads: on the thread
  ///   that computes, a handler that does nothing else saves two changes of thread.
  public mutating func handle<Request, Response>(
    _ method: Method<Request, Response>, on executor: (any TaskExecutor)? = nil,
    _ body: @escaping @Sendable (Payload<Request>, CallContext) async throws -> Payload<Response>
  ) {
    precondition(!method.streams, "\(method.name) streams")
    routes[method.name] = .task(
      { raw, context, _ in RawPayload(try await body(try Router.request(raw.take()), context)) },
      on: executor)
  }

  /// Answers a unary method, with the request in a parcel: for a handler that goes on long after
  /// it is done with the request's tensors, which other handlers keep until they return.
  public mutating func handleParcel<Request, Response>(
    _ method: Method<Request, Response>,
    _ body: @escaping @Sendable (Parcel<Request>, CallContext) async throws -> Payload<Response>
  ) {
    precondition(!method.streams, "\(method.name) streams")
    routes[method.name] = .task(
      { raw, context, _ in
        RawPayload(try await body(Parcel(try Router.request(raw.take())), context))
      }, on: nil)
  }

  /// Answers a unary method on the connection's own thread, without a task: for answers that
  /// take microseconds and never block. Nothing else happens on the connection meanwhile.
  public mutating func handleImmediately<Request, Response>(
    _ method: Method<Request, Response>,
    _ body: @escaping @Sendable (Payload<Request>, CallContext) throws -> Payload<Response>
  ) {
    precondition(!method.streams, "\(method.name) streams")
    routes[method.name] = .immediate { raw, context in
      RawPayload(try body(try Router.request(raw), context))
    }
  }

  /// Answers a method with a stream of responses, which ends when the handler returns.
  public mutating func handleStream<Request, Response>(
    _ method: Method<Request, Response>,
    _ body:
      @escaping @Sendable (
        Payload<Request>, CallContext, ResponseWriter<Response>
      ) async throws -> Void
  ) {
    precondition(method.streams, "\(method.name) does not stream")
    routes[method.name] = .task(
      { raw, context, writer in
        try await body(try Router.request(raw.take()), context, ResponseWriter(raw: writer))
        return nil
      }, on: nil)
  }

  /// Answers every method without a handler of its own, messages left encoded: a proxy. The
  /// payload returned travels with the final status: the response of a unary call.
  public mutating func forward(
    _ body:
      @escaping @Sendable (RawParcel, CallContext, RawResponseWriter) async throws ->
      RawPayload?
  ) {
    fallback = body
  }

  func route(_ method: String) -> Route? { routes[method] ?? fallback.map { .task($0, on: nil) } }

  private static func request<Request: Message>(_ raw: RawPayload) throws -> Payload<Request> {
    do {
      return try raw.decoded(as: Request.self)
    } catch let error as MessagesError {
      throw RPCError(.invalidArgument, "\(error)")
    }
  }
}
