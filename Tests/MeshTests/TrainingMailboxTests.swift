import Testing
import Transport

@testable import StageRuntime

@Suite(.timeLimit(.minutes(1))) struct TrainingMailboxTests {
  private let place = TrainingPlace(microBatch: 3, chunk: 1)

  @Test func `What comes early is kept as the sender says, what is awaited goes as it is`()
    async throws
  {
    let box = Mailbox<String>("letters")
    try box.put("early", at: place) { $0 + ", copied" }
    #expect(try await box.take(place) == "early, copied")
    let other = TrainingPlace(microBatch: 4, chunk: 0)
    async let letter = box.take(other)
    try await Task.sleep(for: .milliseconds(20))
    try box.put("awaited", at: other) { $0 + ", or not yet" }
    #expect(try await letter.hasPrefix("awaited"))
  }

  @Test func `A second value is refused, before and after the first was taken`() async throws {
    let box = Mailbox<Int>("numbers")
    try box.put(1, at: place)
    for _ in 0..<2 {
      let error = await status { try box.put(2, at: place) }
      #expect(error?.code == .alreadyExists)
      #expect(error?.message.contains("micro-batch 3, chunk 1") == true)
      if case .some = error { _ = await status { _ = try await box.take(place) } }
    }
  }

  @Test func `Those who wait hear of the end, and so do those who come later`() async throws {
    let box = Mailbox<Int>("numbers")
    async let waiting = status { _ = try await box.take(place) }
    try await Task.sleep(for: .milliseconds(10))
    box.close(RPCError(.aborted, "over"))
    box.close(RPCError(.internal, "too late"))
    #expect(await waiting?.code == .aborted)
    #expect(await status { _ = try await box.take(place) }?.code == .aborted)
    #expect(await status { try box.put(1, at: place) }?.code == .aborted)
  }

  @Test func `What is there can be taken after an end that keeps it`() async throws {
    let box = Mailbox<Int>("numbers")
    try box.put(7, at: place)
    let other = TrainingPlace(microBatch: 4, chunk: 0)
    async let waiting = status { _ = try await box.take(other) }
    try await Task.sleep(for: .milliseconds(10))
    box.close(RPCError(.failedPrecondition, "over"), keepsValues: true)
    #expect(await waiting?.code == .failedPrecondition)
    #expect(try await box.take(place) == 7)
    #expect(await status { _ = try await box.take(place) }?.code == .failedPrecondition)
  }

  @Test func `A cancelled wait ends, also one that has not begun`() async throws {
    for delay in [0, 10] {
      let box = Mailbox<Int>("numbers")
      let task = Task { try await box.take(place) }
      try await Task.sleep(for: .milliseconds(delay))
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
  }
}
