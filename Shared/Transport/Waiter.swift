import Synchronization

/// One waiting task and the one result it gets: the first of value, failure, cancellation.
final class Waiter<Value: Sendable>: Sendable {
  private enum State {
    case idle
    case waiting(CheckedContinuation<Value, any Error>)
    case resolved(Result<Value, any Error>)
    case taken
  }
  private let state = Mutex(State.idle)

  /// - Returns: false when there was a result already; this one is then not used.
  @discardableResult
  func resolve(_ result: Result<Value, any Error>) -> Bool {
    let (continuation, first): (CheckedContinuation<Value, any Error>?, Bool) = state.withLock {
      switch $0 {
      case .idle:
        $0 = .resolved(result)
        return (nil, true)
      case .waiting(let continuation):
        $0 = .taken
        return (continuation, true)
      case .resolved, .taken:
        return (nil, false)
      }
    }
    continuation?.resume(with: result)
    return first
  }

  var isResolved: Bool {
    state.withLock {
      switch $0 {
      case .idle, .waiting: false
      case .resolved, .taken: true
      }
    }
  }

  /// Waits for the result, once. Cancellation of the task fails it with `cancelled`.
  func value(whenCancelled cancelled: @autoclosure @escaping @Sendable () -> RPCError) async throws
    -> Value
  {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let result: Result<Value, any Error>? = state.withLock {
          if case .resolved(let result) = $0 {
            $0 = .taken
            return result
          }
          $0 = .waiting(continuation)
          return nil
        }
        if let result { continuation.resume(with: result) }
      }
    } onCancel: {
      resolve(.failure(cancelled()))
    }
  }
}
