import Messages
import Tensors

extension Connection {
  /// Calls a unary method.
  ///
  /// - Parameters:
  ///   - authority: which of several services behind the connection is meant; nil: the peer.
  ///   - deadline: when to give up, on both sides; nil: never.
  /// - Throws: ``RPCError``: the status that the handler ended with; CANCELLED at once when this
  ///   task is cancelled; DEADLINE_EXCEEDED; UNAVAILABLE when the connection ends.
  public func call<Request, Response>(
    _ method: Method<Request, Response>, _ request: Request, tensors: [Attachment] = [],
    authority: String? = nil, deadline: Deadline? = nil
  ) async throws -> Payload<Response> {
    precondition(!method.streams, "\(method.name) streams")
    let exchange = try await begin(
      method.name, RawPayload(message: request.encoded(), tensors: tensors), authority: authority,
      deadline: deadline)
    guard case .end(let payload?) = try await exchange.next() else {
      throw RPCError(.internal, "\(peer) answered \(method.name) without exactly one response")
    }
    do {
      return try payload.decoded(as: Response.self)
    } catch let error as MessagesError {
      throw RPCError(.internal, "\(peer) answered \(method.name): \(error)")
    }
  }

  /// Calls a method that answers with a stream. The request is sent when the first response is
  /// asked for; letting go of the stream and its iterator cancels the call.
  public func stream<Request, Response>(
    _ method: Method<Request, Response>, _ request: Request, tensors: [Attachment] = [],
    authority: String? = nil, deadline: Deadline? = nil
  ) -> ResponseStream<Response> {
    precondition(method.streams, "\(method.name) does not stream")
    let payload = RawPayload(message: request.encoded(), tensors: tensors)
    return ResponseStream(method: method.name) { [self] in
      try await begin(method.name, payload, authority: authority, deadline: deadline)
    }
  }

  /// Makes a call whose messages are left encoded.
  public func begin(
    _ method: String, _ request: RawPayload, authority: String? = nil, deadline: Deadline? = nil
  ) async throws -> RawExchange {
    if Task.isCancelled { throw RPCError.cancelled(method) }
    if let deadline, deadline.isPassed { throw RPCError.deadlineExceeded(method) }
    let prepared = try await prepare(request, deadline: deadline)
    let call: OutgoingCall = try state.withLock { state in
      if case .closed(let reason) = state.phase { throw reason }
      guard !state.peerGoesAway else {
        throw RPCError(.unavailable, "\(peer) is shutting down and takes no new calls")
      }
      let call = OutgoingCall(number: state.nextNumber, method: method)
      state.nextNumber += 2
      state.outgoing[call.number] = call
      return call
    }
    let exchange = RawExchange(connection: self, call: call)
    var frame = Frame(kind: .request, call: call.number, method: method, authority: authority)
    if let deadline {
      frame.timeoutMicroseconds = deadline.remaining.microseconds
      let timer = addTimer(deadline) { [weak self, weak call] in
        guard let self, let call else { return }
        self.abandon(call, RPCError.deadlineExceeded("\(call.method) on \(self.peer)"))
      }
      call.timer = timer
      // Whoever ended the call meanwhile did not know of the timer.
      if state.withLock({ $0.outgoing[call.number] == nil }) { timers.remove(timer) }
    }
    send(frame, prepared)
    return exchange
  }

  /// Ends a call on this side, and tells the peer.
  func abandon(_ call: OutgoingCall, _ reason: RPCError) {
    guard state.withLock({ $0.outgoing.removeValue(forKey: call.number) }) != nil else { return }
    timers.remove(call.timer)
    _ = call.deliver(.ended(.failure(reason)), window: .max)
    if case .stuck = outbox.send(Frame(kind: .cancel, call: call.number)) { end(.readsNothing) }
  }
}

/// A call under way, its messages left encoded. Letting go of it cancels the call.
public final class RawExchange: Sendable {
  public enum Event: Sendable {
    case response(RawPayload)
    /// The call ended well; a unary call's response comes with it.
    case end(RawPayload?)
  }

  private let connection: Connection
  private let call: OutgoingCall

  init(connection: Connection, call: OutgoingCall) {
    self.connection = connection
    self.call = call
  }

  deinit { cancel() }

  /// Ends the call, if it has not ended.
  public func cancel() { connection.abandon(call, .cancelled("\(call.method)")) }

  /// The next event. One task at a time may wait.
  /// - Throws: ``RPCError``, the status with which the call failed.
  public func next() async throws -> Event {
    let event = await withTaskCancellationHandler {
      await call.next()
    } onCancel: {
      cancel()
    }
    switch event {
    case .response(let payload):
      if let credit = call.took(window: connection.options.streamWindow) {
        connection.outbox.send(
          Frame(kind: .credit, call: call.number, credit: UInt32(clamping: credit)))
      }
      return .response(payload)
    case .ended(let result):
      return .end(try result.get())
    }
  }
}

/// The responses of a streaming call, in order; to be iterated once.
public struct ResponseStream<Response: Message>: AsyncSequence, Sendable {
  public typealias Element = Payload<Response>
  let method: String
  let begin: @Sendable () async throws -> RawExchange

  public func makeAsyncIterator() -> Iterator { Iterator(method: method, begin: begin) }

  public struct Iterator: AsyncIteratorProtocol {
    let method: String
    let begin: @Sendable () async throws -> RawExchange
    var exchange: RawExchange?
    var hasEnded = false

    init(method: String, begin: @escaping @Sendable () async throws -> RawExchange) {
      self.method = method
      self.begin = begin
    }

    /// - Throws: ``RPCError``, the status with which the call failed.
    public mutating func next() async throws -> Payload<Response>? {
      guard !hasEnded else { return nil }
      do {
        let exchange: RawExchange
        if let begun = self.exchange {
          exchange = begun
        } else {
          exchange = try await begin()
          self.exchange = exchange
        }
        switch try await exchange.next() {
        case .response(let payload): return try payload.decoded(as: Response.self)
        case .end:
          hasEnded = true
          return nil
        }
      } catch let error as MessagesError {
        hasEnded = true
        exchange?.cancel()
        throw RPCError(.internal, "a response of \(method): \(error)")
      } catch {
        hasEnded = true
        throw error
      }
    }
  }
}
