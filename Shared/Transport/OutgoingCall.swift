import Synchronization

/// What arrives for a call, in order. The last one is `ended`.
enum CallEvent: Sendable {
  case response(RawPayload)
  /// The status; a unary call's response comes with it.
  case ended(Result<RawPayload?, RPCError>)
}

/// A call this side made: what arrived for it, and who waits for it.
final class OutgoingCall: Sendable {
  let number: UInt64
  let method: String
  private struct State {
    var events: [CallEvent] = []
    var first = 0
    var waiting: CheckedContinuation<CallEvent, Never>?
    var hasEnded = false
    var timer: UInt64?
    /// Responses taken since the last credit.
    var taken = 0
  }
  private let state = Mutex(State())

  init(number: UInt64, method: String) {
    self.number = number
    self.method = method
  }

  /// - Returns: false when more responses are waiting than the peer may have sent.
  func deliver(_ event: CallEvent, window: Int) -> Bool {
    let (waiting, fits): (CheckedContinuation<CallEvent, Never>?, Bool) = state.withLock { state in
      guard !state.hasEnded else { return (nil, true) }
      if case .ended = event { state.hasEnded = true }
      if let waiting = state.waiting {
        state.waiting = nil
        return (waiting, true)
      }
      state.events.append(event)
      return (nil, state.hasEnded || state.events.count - state.first <= window)
    }
    waiting?.resume(returning: event)
    return fits
  }

  /// The next event, once each; after the last one, it again. One task at a time may wait.
  func next() async -> CallEvent {
    await withCheckedContinuation { continuation in
      let event: CallEvent? = state.withLock { state in
        if state.first < state.events.count {
          let event = state.events[state.first]
          if case .ended = event { return event }
          state.first += 1
          if state.first == state.events.count {
            state.events = []
            state.first = 0
          }
          return event
        }
        precondition(state.waiting == nil, "two tasks wait for one call")
        guard !state.hasEnded else {
          return .ended(.failure(RPCError(.failedPrecondition, "\(method) has already ended")))
        }
        state.waiting = continuation
        return nil
      }
      if let event { continuation.resume(returning: event) }
    }
  }

  /// Counts a response that was taken.
  /// - Returns: credit to send.
  func took(window: Int) -> Int? {
    state.withLock { state in
      state.taken += 1
      guard state.taken >= max(window / 2, 1) else { return nil }
      defer { state.taken = 0 }
      return state.taken
    }
  }

  var timer: UInt64? {
    get { state.withLock { $0.timer } }
    set { state.withLock { $0.timer = newValue } }
  }
}
