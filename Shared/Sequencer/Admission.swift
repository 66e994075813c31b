import Messages
import Transport

/// Hands out places among the running answers and positions in the language stages' caches, in
/// the order of asking.
actor Admission {
  private struct Waiter {
    let id: UInt64
    let positions: Int
    let continuation: CheckedContinuation<Void, any Error>
  }

  /// Stages are down: wait until they are back, and enter again.
  struct StagesGone: Error {}

  private let limits: GatewayLimits
  private let capacity: @Sendable () -> Int
  private var used = 0
  private(set) var running = 0
  private var waiters: [Waiter] = []
  private var arriving = 0
  private var nextWaiter: UInt64 = 0

  /// - Parameter capacity: positions that the smallest cache among the language stages has now.
  init(limits: GatewayLimits, capacity: @escaping @Sendable () -> Int) {
    self.limits = limits
    self.capacity = capacity
  }

  /// Requests that have no place yet, whether their prompt is ready or not.
  var waiting: Int { arriving }

  /// Looks again at what the language stages have: there may be room now, or never again.
  func capacityChanged() {
    let capacity = capacity()
    for waiter in waiters where waiter.positions > capacity {
      waiter.continuation.resume(
        throwing: capacity > 0 ? tooLarge(waiter.positions, capacity) : StagesGone())
    }
    waiters.removeAll { $0.positions > capacity }
    admitWaiting()
  }

  /// Counts a request in before any work is done for it.
  ///
  /// - Throws: RESOURCE_EXHAUSTED when as many are waiting as may.
  func arrive() throws {
    guard arriving < limits.waiting else {
      throw RPCError(
        .resourceExhausted,
        "\(arriving) requests are waiting already, the most this gateway takes; try again later")
    }
    arriving += 1
  }

  /// Counts out a request that ended without a place.
  func leave() { arriving -= 1 }

  /// Waits for a place and `positions` of cache. On return the request no longer counts as
  /// waiting, and ``release(positions:)`` is owed.
  ///
  /// - Throws: RESOURCE_EXHAUSTED when the caches are smaller than that, ``StagesGone`` when there
  ///   are none; `CancellationError`.
  func enter(positions: Int) async throws {
    let capacity = capacity()
    guard capacity > 0 else { throw StagesGone() }
    guard positions <= capacity else { throw tooLarge(positions, capacity) }
    if waiters.isEmpty && fits(positions) {
      take(positions)
      return
    }
    let id = nextWaiter
    nextWaiter += 1
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation {
        (continuation: CheckedContinuation<Void, any Error>) in
        if Task.isCancelled {
          continuation.resume(throwing: CancellationError())
        } else {
          waiters.append(Waiter(id: id, positions: positions, continuation: continuation))
        }
      }
    } onCancel: {
      Task { await self.abandon(id) }
    }
  }

  func release(positions: Int) {
    used -= positions
    running -= 1
    admitWaiting()
  }

  private func tooLarge(_ positions: Int, _ capacity: Int) -> RPCError {
    RPCError(
      .resourceExhausted,
      "the request needs \(positions) cache positions, the language stages have \(capacity); "
        + "ask for fewer tokens, or start the stages with a larger --cache-tokens")
  }

  private func fits(_ positions: Int) -> Bool {
    running < limits.running && positions <= capacity() - used
  }

  private func take(_ positions: Int) {
    used += positions
    running += 1
    arriving -= 1
  }

  private func admitWaiting() {
    while let first = waiters.first, fits(first.positions) {
      waiters.removeFirst()
      take(first.positions)
      first.continuation.resume()
    }
  }

  private func abandon(_ id: UInt64) {
    guard let index = waiters.firstIndex(where: { $0.id == id }) else { return }
    waiters.remove(at: index).continuation.resume(throwing: CancellationError())
    admitWaiting()
  }
}
