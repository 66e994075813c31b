import Synchronization
import Transport

/// One micro-batch in one of a stage's slices of layers.
struct TrainingPlace: Hashable, Sendable, CustomStringConvertible {
  let microBatch: Int
  let chunk: Int

  var description: String {
    chunk == 0 ? "micro-batch \(microBatch)" : "micro-batch \(microBatch), chunk \(chunk)"
  }
}

/// What comes for the places of one step: each value once, taken once, in whatever order.
///
/// Bounded by the number of places, which is checked before anything is put here.
final class Mailbox<Value: Sendable>: Sendable {
  fileprivate enum Cell {
    case awaited(CheckedContinuation<Value, any Error>)
    case full(Value)
    /// Came and was taken.
    case empty
  }

  private struct State {
    var cells: [TrainingPlace: Cell] = [:]
    /// Of the closing: there are no cells then but full ones that may still be taken.
    var failure: RPCError?
  }

  private let state = Mutex(State())
  /// Names the values, for errors: "activations".
  private let what: String

  init(_ what: String) { self.what = what }

  /// Gives a value to whoever waits for it or comes for it later.
  ///
  /// - Parameter early: what is kept of a value that nobody waits for yet; runs on the caller's
  ///   thread.
  /// - Throws: what the mailbox was closed with; ALREADY_EXISTS for a second value.
  func put(
    _ value: Value, at place: TrainingPlace, early: (Value) -> Value = { $0 }
  ) throws(RPCError) {
    if try deliver(value, at: place, keeps: false) { return }
    _ = try deliver(early(value), at: place, keeps: true)
  }

  private func deliver(
    _ value: Value, at place: TrainingPlace, keeps: Bool
  ) throws(RPCError) -> Bool {
    let found: Result<CheckedContinuation<Value, any Error>?, RPCError> = state.withLock {
      if let failure = $0.failure { return .failure(failure) }
      switch $0.cells[place] {
      case .awaited(let continuation):
        $0.cells[place] = .empty
        return .success(continuation)
      case .full, .empty:
        return .failure(RPCError(.alreadyExists, "\(what) of \(place) came twice"))
      case nil:
        if keeps { $0.cells[place] = .full(value) }
        return .success(nil)
      }
    }
    let continuation = try found.get()
    continuation?.resume(returning: value)
    return continuation != nil
  }

  /// Takes the value of a place, waiting for it where it has not come.
  ///
  /// - Throws: what the mailbox is closed with; `CancellationError`.
  func take(_ place: TrainingPlace) async throws -> Value {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let result: Result<Value, any Error>? = state.withLock { state in
          if case .full(let value) = state.cells[place] {
            state.cells[place] = .empty
            return .success(value)
          }
          if let failure = state.failure { return .failure(failure) }
          guard state.cells[place] == nil else {
            return .failure(RPCError(.internal, "\(what) of \(place) were taken twice"))
          }
          if Task.isCancelled { return .failure(CancellationError()) }
          state.cells[place] = .awaited(continuation)
          return nil
        }
        if let result { continuation.resume(with: result) }
      }
    } onCancel: {
      let continuation: CheckedContinuation<Value, any Error>? = state.withLock { state in
        guard case .awaited(let continuation) = state.cells[place] else { return nil }
        state.cells[place] = .empty
        return continuation
      }
      continuation?.resume(throwing: CancellationError())
    }
  }

  /// Ends all waiting. Only the first error counts.
  ///
  /// - Parameter keepsValues: whether what came and was not taken may still be; it is dropped
  ///   otherwise.
  func close(_ error: RPCError, keepsValues: Bool = false) {
    let cells = state.withLock { state in
      if state.failure == nil { state.failure = error }
      let cells = state.cells
      state.cells = cells.filter { keepsValues && $0.value.isFull }
      return cells
    }
    for case .awaited(let continuation) in cells.values { continuation.resume(throwing: error) }
  }
}

extension Mailbox.Cell {
  fileprivate var isFull: Bool { if case .full = self { true } else { false } }
}
