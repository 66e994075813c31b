import Synchronization
import Tensors
import Transport

/// Memory for the pixels that wait for their forward pass: ``bound`` bytes, or those of one
/// micro-batch where that takes more.
final class PixelRoom: Sendable {
  /// Whether the forward pass waits for the very pixels.
  typealias IsAwaited = @Sendable () -> Bool

  private struct Waiter {
    let bytes: Int
    /// Or only asks whether they would fit.
    let takes: Bool
    let isAwaited: IsAwaited
    let continuation: CheckedContinuation<Void, any Error>
  }

  private struct State {
    var held = 0
    /// Of these, what a forward pass reads, and drops at its end.
    var leaving = 0
    var peak = 0
    var waiters: [(id: Int, waiter: Waiter)] = []
    var nextID = 0
  }

  let bound: Int
  private let state = Mutex(State())

  init(bound: Int) { self.bound = bound }

  /// The most bytes that were held at one time.
  var peakBytes: Int { state.withLock { $0.peak } }

  /// Copies pixels out of the sender's memory, as soon as there is room.
  ///
  /// - Parameter isAwaited: asked at any time, under a lock: whether a forward pass waits for
  ///   them. They need no room then: nothing else might leave before they come.
  /// - Throws: `CancellationError`.
  func hold(_ pixels: Tensor, isAwaited: @escaping IsAwaited) async throws -> HeldPixels {
    try await wait(bytes: pixels.byteCount, takes: true, isAwaited)
    return HeldPixels(pixels.onHeap(), in: self)
  }

  /// Waits until pixels would find room.
  ///
  /// - Throws: `CancellationError`.
  func wait(for bytes: Int, isAwaited: @escaping IsAwaited) async throws {
    try await wait(bytes: bytes, takes: false, isAwaited)
  }

  /// Somebody begins to wait for pixels.
  func reconsider() { admit { _ in } }

  fileprivate func leave(_ bytes: Int) { state.withLock { $0.leaving += bytes } }

  fileprivate func give(_ bytes: Int, wasLeaving: Bool) {
    admit {
      $0.held -= bytes
      if wasLeaving { $0.leaving -= bytes }
    }
  }

  private func wait(
    bytes: Int, takes: Bool, _ isAwaited: @escaping IsAwaited
  ) async throws {
    let id = state.withLock { state in
      defer { state.nextID += 1 }
      return state.nextID
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let waiter = Waiter(
          bytes: bytes, takes: takes, isAwaited: isAwaited, continuation: continuation)
        admit { $0.waiters.append((id, waiter)) }
        if Task.isCancelled { cancel(id) }
      }
    } onCancel: {
      cancel(id)
    }
  }

  private func cancel(_ id: Int) {
    let waiter = state.withLock { state in
      state.waiters.firstIndex { $0.id == id }.map { state.waiters.remove(at: $0).waiter }
    }
    waiter?.continuation.resume(throwing: CancellationError())
  }

  /// Lets in whoever fits after a change.
  private func admit(after change: (inout State) -> Void) {
    let admitted = state.withLock { state in
      change(&state)
      var admitted: [Waiter] = []
      var left: [(id: Int, waiter: Waiter)] = []
      for entry in state.waiters {
        let waiter = entry.waiter
        // Where something is about to leave, that makes room.
        guard
          state.held == 0 || state.held + waiter.bytes <= bound
            || state.leaving == 0 && waiter.isAwaited()
        else {
          left.append(entry)
          continue
        }
        if waiter.takes {
          state.held += waiter.bytes
          state.peak = max(state.peak, state.held)
        }
        admitted.append(waiter)
      }
      state.waiters = left
      return admitted
    }
    for waiter in admitted { waiter.continuation.resume() }
  }
}

/// Pixels on the heap, which count in their room as long as somebody has them.
final class HeldPixels: Sendable {
  let tensor: Tensor
  private let room: PixelRoom
  private let bytes: Int
  private let isLeaving = Atomic<Bool>(false)

  fileprivate init(_ tensor: Tensor, in room: PixelRoom) {
    self.tensor = tensor
    self.room = room
    bytes = tensor.byteCount
  }

  /// The forward pass has come to them: they leave with it.
  func leave() {
    if !isLeaving.exchange(true, ordering: .relaxed) { room.leave(bytes) }
  }

  deinit { room.give(bytes, wasLeaving: isLeaving.load(ordering: .relaxed)) }
}
