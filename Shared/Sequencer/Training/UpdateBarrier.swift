/// Keeps answers and updates of the weights apart: chat's calls pass while no update waits or is
/// at work, and an update begins when those under way have ended.
///
/// An answer's token is therefore computed with one set of weights by all stages. Training's
/// forward and backward passes do not take part: they change no weights.
actor UpdateBarrier {
  private struct UpdateWaiter {
    let id: UInt64
    let continuation: CheckedContinuation<Void, any Error>
  }

  private var passing = 0
  private var updates = 0
  private var isUpdating = false
  private var waitingToPass: [UInt64: CheckedContinuation<Void, any Error>] = [:]
  private var waitingToUpdate: [UpdateWaiter] = []
  private var nextWaiter: UInt64 = 0

  /// Runs one of chat's calls.
  ///
  /// - Throws: what `body` throws; `CancellationError` while it waits.
  nonisolated func pass<Result: Sendable>(
    _ body: @Sendable () async throws -> Result
  ) async throws -> Result {
    try await enter()
    do {
      let result = try await body()
      await leave()
      return result
    } catch {
      await leave()
      throw error
    }
  }

  /// Runs an update, once nothing passes.
  ///
  /// - Throws: what `body` throws; `CancellationError` while it waits.
  nonisolated func update<Result: Sendable>(
    _ body: @Sendable () async throws -> Result
  ) async throws -> Result {
    try await beginUpdate()
    do {
      let result = try await body()
      await endUpdate()
      return result
    } catch {
      await endUpdate()
      throw error
    }
  }

  /// Whether an update waits or is at work.
  var isWanted: Bool { updates > 0 }

  private func enter() async throws {
    while updates > 0 { try await waitToPass() }
    passing += 1
  }

  private func leave() {
    passing -= 1
    beginNextUpdate()
  }

  private func beginUpdate() async throws {
    updates += 1
    if passing == 0 && !isUpdating {
      isUpdating = true
      return
    }
    let id = nextWaiter
    nextWaiter += 1
    do {
      try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation {
          (continuation: CheckedContinuation<Void, any Error>) in
          if Task.isCancelled {
            continuation.resume(throwing: CancellationError())
          } else {
            waitingToUpdate.append(UpdateWaiter(id: id, continuation: continuation))
          }
        }
      } onCancel: {
        Task { await self.dropUpdate(id) }
      }
    } catch {
      updates -= 1
      letPass()
      throw error
    }
  }

  private func endUpdate() {
    updates -= 1
    isUpdating = false
    beginNextUpdate()
    letPass()
  }

  private func beginNextUpdate() {
    guard passing == 0, !isUpdating, !waitingToUpdate.isEmpty else { return }
    isUpdating = true
    waitingToUpdate.removeFirst().continuation.resume()
  }

  private func letPass() {
    guard updates == 0 else { return }
    let waiting = waitingToPass.values
    waitingToPass.removeAll()
    for continuation in waiting { continuation.resume() }
  }

  private func waitToPass() async throws {
    let id = nextWaiter
    nextWaiter += 1
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation {
        (continuation: CheckedContinuation<Void, any Error>) in
        if Task.isCancelled {
          continuation.resume(throwing: CancellationError())
        } else {
          waitingToPass[id] = continuation
        }
      }
    } onCancel: {
      Task { await self.dropPasser(id) }
    }
  }

  private func dropPasser(_ id: UInt64) {
    waitingToPass.removeValue(forKey: id)?.resume(throwing: CancellationError())
  }

  private func dropUpdate(_ id: UInt64) {
    guard let index = waitingToUpdate.firstIndex(where: { $0.id == id }) else { return }
    waitingToUpdate.remove(at: index).continuation.resume(throwing: CancellationError())
  }
}
