import Testing

@testable import Sequencer

/// Answers' calls and updates of the weights, kept apart.
@Suite(.timeLimit(.minutes(1))) struct RunBarrierTests {
  @Test func `An update waits for calls under way, and holds back later ones`() async throws {
    let barrier = UpdateBarrier()
    let begun = Counter()
    let updated = Counter()
    let later = Counter()
    let gate = AsyncStream<Void>.makeStream()
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        try await barrier.pass {
          begun.add()
          for await _ in gate.stream {}
          #expect(updated.value == 0)
        }
      }
      try await eventually("the first call is under way") { begun.value == 1 }
      group.addTask { try await barrier.update { updated.add() } }
      try await eventually("the update waits") { await barrier.isWanted }
      group.addTask {
        try await barrier.pass {
          #expect(updated.value == 1)
          later.add()
        }
      }
      gate.continuation.finish()
      try await group.waitForAll()
    }
    #expect(updated.value == 1 && later.value == 1)
  }

  @Test func `Who stops waiting holds up nobody`() async throws {
    let barrier = UpdateBarrier()
    let gate = AsyncStream<Void>.makeStream()
    let begun = Counter()
    let call = Task {
      try await barrier.pass {
        begun.add()
        for await _ in gate.stream {}
      }
    }
    try await eventually("a call is under way") { begun.value == 1 }
    let update = Task { try await barrier.update {} }
    try await eventually("the update waits") { await barrier.isWanted }
    update.cancel()
    await #expect(throws: CancellationError.self) { try await update.value }
    // Passes although the first call still does.
    try await barrier.pass {}
    gate.continuation.finish()
    try await call.value
    try await barrier.update {}
  }

  @Test func `A failed update lets calls pass again`() async throws {
    let barrier = UpdateBarrier()
    await #expect(throws: CancellationError.self) {
      try await barrier.update { throw CancellationError() }
    }
    try await barrier.pass {}
  }
}
