import Messages
import Tensors

/// What the connection's thread does with frames from the peer.
extension Connection {
  /// - Throws: ``WireViolation``.
  func receive(_ frame: Frame, _ tensors: [Attachment]) throws {
    switch frame.kind {
    case .request: try receiveRequest(frame, tensors)
    case .response: try receiveResponse(frame, tensors)
    case .status: try receiveStatus(frame, tensors)
    case .cancel:
      let call = state.withLock { $0.incoming.removeValue(forKey: frame.call) }
      timers.remove(call?.timer)
      call?.cancel()
    case .release:
      guard let arena = state.withLock({ $0.arena }) else {
        throw WireViolation.released(offset: frame.released.first ?? 0)
      }
      try arena.release(frame.released)
    case .goAway:
      state.withLock {
        $0.peerGoesAway = true
        guard let status = frame.status, status.code != .ok else { return }
        $0.reason = RPCError(.unavailable, "\(peer) closed the connection: \(status.message)")
      }
    case .credit:
      let call = state.withLock { $0.incoming[frame.call] }
      if let call, !call.grant(Int(frame.credit)) { throw WireViolation.credit(frame.call) }
    case .hello: throw WireViolation.helloTwice
    case .arena, .unspecified: throw WireViolation.unexpectedFrame(frame.kind)
    }
  }

  /// The peer's first frame.
  func receiveHello(_ frame: Frame) throws {
    guard frame.kind == .hello else { throw WireViolation.noHello(frame.kind) }
    guard frame.version == Connection.version else { throw WireViolation.version(frame.version) }
    guard frame.tensors.isEmpty else { throw WireViolation.unexpectedFrame(.hello) }
    state.withLock {
      guard case .opening = $0.phase else { return }
      $0.phase = .open
      $0.peerAcceptsArena = frame.acceptsArena
      $0.peerWindow = max(1, Int(frame.streamWindow))
    }
    ready.resolve(.success(()))
    events.didOpen(self)
  }

  private func receiveRequest(_ frame: Frame, _ tensors: [Attachment]) throws {
    let number = frame.call
    guard number > 0, (number % 2 == 1) != isInitiator else {
      throw WireViolation.callNumber(number, .request)
    }
    let deadline = frame.timeoutMicroseconds.map { Deadline.after(Duration(microseconds: $0)) }
    enum Refusal {
      case duplicate, goingAway, tooMany
    }
    let result: Result<IncomingCall, RPCError>? = state.withLock { state in
      guard state.incoming[number] == nil else { return nil }
      guard !state.goesAway else {
        return .failure(
          RPCError(.unavailable, "the service spoken to by \(peer) is shutting down"))
      }
      guard state.handlers < options.maximumCalls else {
        return .failure(
          RPCError(
            .resourceExhausted, "\(options.maximumCalls) calls of this connection are at work"))
      }
      let call = IncomingCall(
        number: number, method: frame.method, deadline: deadline, window: state.peerWindow)
      state.incoming[number] = call
      state.handlers += 1
      return .success(call)
    }
    guard let result else { throw WireViolation.callNumber(number, .request) }
    let call: IncomingCall
    switch result {
    case .failure(let error):
      sendStatus(number, error)
      return
    case .success(let accepted): call = accepted
    }
    if let deadline {
      call.timer = addTimer(deadline) { [weak self, weak call] in
        guard let self, let call else { return }
        // In this order: a handler that ends at once would have its own word first.
        self.finish(
          call, .failure(RPCError.deadlineExceeded("\(call.method)")), isHandlerDone: false)
        call.cancel()
      }
    }
    let payload = RawPayload(message: frame.message ?? [], tensors: tensors)
    let context = CallContext(
      method: frame.method, deadline: deadline, authority: frame.authority, connection: self)
    switch router.route(frame.method) {
    case nil:
      finish(
        call, .failure(RPCError(.unimplemented, "no method \(frame.method) here")),
        isHandlerDone: true)
    case .immediate(let body):
      do {
        let reply = try prepareNow(try body(payload, context))
        finish(call, .success(reply), isHandlerDone: true)
      } catch {
        finish(call, .failure(RPCError(handlerError: error)), isHandlerDone: true)
      }
    case .task(let body, let executor):
      // What the closure holds, it holds until it ends.
      let parcel = RawParcel(payload)
      call.run(on: executor) { [self] in
        do {
          let writer = RawResponseWriter(connection: self, call: call)
          guard let reply = try await body(parcel, context, writer) else {
            finish(call, .success(nil), isHandlerDone: true)
            return
          }
          let prepared = try await prepare(reply, deadline: deadline)
          finish(call, .success(prepared), isHandlerDone: true)
        } catch {
          finish(call, .failure(RPCError(handlerError: error)), isHandlerDone: true)
        }
      }
    }
  }

  /// Ends a call of the peer, unless it has ended.
  private func finish(
    _ call: IncomingCall, _ result: Result<PreparedPayload?, RPCError>, isHandlerDone: Bool
  ) {
    let isActive = state.withLock {
      if isHandlerDone { $0.handlers -= 1 }
      // A later call may carry the same number only after this one's end.
      guard $0.incoming[call.number] === call else { return false }
      $0.incoming[call.number] = nil
      return true
    }
    timers.remove(call.timer)
    guard isActive else { return }
    switch result {
    case .success(nil): sendStatus(call.number, nil)
    case .success(let reply?):
      send(Frame(kind: .status, call: call.number, status: CallStatus(code: .ok)), reply)
    case .failure(let error): sendStatus(call.number, error)
    }
  }

  private func sendStatus(_ number: UInt64, _ error: RPCError?) {
    let status = CallStatus(
      code: error?.code ?? .ok, message: String((error?.message ?? "").prefix(16_384)))
    if case .stuck = outbox.send(Frame(kind: .status, call: number, status: status)) {
      end(.readsNothing)
    }
  }

  /// Sends one response of a streaming call.
  func respond(_ call: IncomingCall, _ payload: RawPayload) async throws {
    func checkActive() throws {
      try state.withLock {
        if case .closed(let reason) = $0.phase { throw reason }
        guard $0.incoming[call.number] === call else {
          throw RPCError(.cancelled, "\(call.method) is over")
        }
      }
    }
    try checkActive()
    try await call.takeCredit()
    let prepared = try await prepare(payload, deadline: call.deadline)
    try checkActive()
    send(Frame(kind: .response, call: call.number), prepared)
  }

  private func receiveResponse(_ frame: Frame, _ tensors: [Attachment]) throws {
    guard let call = try outgoing(frame) else { return }
    let payload = RawPayload(message: frame.message ?? [], tensors: tensors)
    guard call.deliver(.response(payload), window: options.streamWindow) else {
      throw WireViolation.streamOverrun(frame.call)
    }
  }

  private func receiveStatus(_ frame: Frame, _ tensors: [Attachment]) throws {
    guard let call = try outgoing(frame),
      state.withLock({ $0.outgoing.removeValue(forKey: frame.call) }) != nil
    else { return }
    timers.remove(call.timer)
    let status = frame.status ?? CallStatus(code: .unknown, message: "\(peer) sent no status")
    if status.code == .ok {
      let payload = frame.message.map { RawPayload(message: $0, tensors: tensors) }
      _ = call.deliver(.ended(.success(payload)), window: .max)
    } else {
      _ = call.deliver(
        .ended(.failure(RPCError(status.code, status.message))), window: .max)
    }
  }

  /// The call of this side that a frame is about; nil when it was given up meanwhile.
  private func outgoing(_ frame: Frame) throws -> OutgoingCall? {
    try state.withLock {
      guard frame.call > 0, (frame.call % 2 == 1) == isInitiator, frame.call < $0.nextNumber else {
        throw WireViolation.callNumber(frame.call, frame.kind)
      }
      return $0.outgoing[frame.call]
    }
  }
}
