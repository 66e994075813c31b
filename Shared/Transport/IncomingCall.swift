import Synchronization

/// A call the peer made, while its handler works on it.
final class IncomingCall: Sendable {
  let number: UInt64
  let method: String
  let deadline: Deadline?
  private struct State {
    var task: Task<Void, Never>?
    var isCancelled = false
    /// Responses that may still be sent before the peer grants more.
    var credit: Int
    var creditWaiter: Waiter<Void>?
    var timer: UInt64?
  }
  private let window: Int
  private let state: Mutex<State>

  init(number: UInt64, method: String, deadline: Deadline?, window: Int) {
    self.number = number
    self.method = method
    self.deadline = deadline
    self.window = window
    state = Mutex(State(credit: window))
  }

  func run(on executor: (any TaskExecutor)?, _ body: @escaping @Sendable () async -> Void) {
    let task = Task(executorPreference: executor, operation: body)
    let isCancelled = state.withLock {
      $0.task = task
      return $0.isCancelled
    }
    if isCancelled { task.cancel() }
  }

  func cancel() {
    let task = state.withLock {
      $0.isCancelled = true
      return $0.task
    }
    task?.cancel()
  }

  /// - Returns: false when the peer grants more than its window.
  func grant(_ count: Int) -> Bool {
    let (waiter, fits): (Waiter<Void>?, Bool) = state.withLock { state in
      guard count <= window - state.credit else { return (nil, false) }
      state.credit += count
      defer { state.creditWaiter = nil }
      return (state.creditWaiter, true)
    }
    waiter?.resolve(.success(()))
    return fits
  }

  /// Waits until another response may be sent, and takes the credit for it.
  func takeCredit() async throws {
    while true {
      let waiter: Waiter<Void>? = state.withLock {
        if $0.credit > 0 {
          $0.credit -= 1
          return nil
        }
        let waiter = $0.creditWaiter ?? Waiter<Void>()
        $0.creditWaiter = waiter
        return waiter
      }
      guard let waiter else { return }
      try await waiter.value(whenCancelled: RPCError(.cancelled, "the call was cancelled"))
    }
  }

  var timer: UInt64? {
    get { state.withLock { $0.timer } }
    set { state.withLock { $0.timer = newValue } }
  }
}
