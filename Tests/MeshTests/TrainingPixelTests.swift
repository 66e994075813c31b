import Messages
import Synchronization
import Tensors
import Testing
import Training
import Transport

@testable import StageRuntime

/// Pixels come to the first stage while the step runs, as many as there is room for.
@Suite(.timeLimit(.minutes(2))) struct TrainingPixelTests {
  typealias Plan = TrainingMesh.Plan
  /// Of one tile.
  static let tile = 3 * 56 * 56 * 4

  static func plan(_ schedule: ScheduleKind) -> Plan {
    var plan = Plan(vision: [0..<1, 1..<2], language: [[0..<2], [2..<4]], schedule: schedule)
    plan.pixelBytes = tile
    return plan
  }

  private func layouts(
    _ microBatches: [(MicroBatch, pixels: Tensor?)]
  ) -> [(MicroBatch, pixels: Tensor?)] {
    microBatches.map { ($0.0, pixels: nil) }
  }

  private func feedPixels(
    _ mesh: TrainingMesh, _ step: UInt64, _ microBatches: [(MicroBatch, pixels: Tensor?)]
  ) async throws {
    for (index, (_, pixels)) in microBatches.enumerated() {
      guard let pixels else { continue }
      _ = try await mesh.call(
        0, Methods.Trainer.feed, FeedRequest(step: step, microBatch: index),
        tensors: [Attachment(pixels, name: "pixels")])
    }
  }

  private func workingBytes(_ mesh: TrainingMesh) async throws -> Int {
    try await mesh.call(0, Methods.Stage.describe, DescribeRequest()).message.workingBytes
  }

  /// Steps 1 and on, with their pixels beside them.
  private func train(
    _ mesh: TrainingMesh, _ steps: [[(MicroBatch, pixels: Tensor?)]]
  ) async throws -> TrainedBits {
    var bits = TrainedBits()
    for (index, microBatches) in steps.enumerated() {
      let number = UInt64(index) + 1
      try await mesh.feed(number, layouts(microBatches))
      async let feeding: Void = feedPixels(mesh, number, microBatches)
      let requests = try mesh.requests(number, microBatches: microBatches.count)
      bits.take(
        try await mesh.each {
          try await mesh.call($0, Methods.Trainer.step, requests[$0]).message
        })
      try await feeding
      try await mesh.update(number)
    }
    try await mesh.fetch(into: &bits)
    return bits
  }

  @Test(arguments: [ScheduleKind.gpipe, .oneForwardOneBackward, .zeroBubble])
  func `Pixels that come during the step give the bits of those that came before it`(
    _ schedule: ScheduleKind
  ) async throws {
    try await withTraining(Self.plan(schedule)) { mesh, model in
      // Two tiles take more than there is room for.
      let steps = [model.microBatches([1, 0, 2, 1, 1, 0]), model.microBatches([0, 1, 1])]
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      #expect(try await train(mesh, steps) == expected)
    }
  }

  @Test func `A feed that waits for room ends when the step is abandoned`() async throws {
    try await withTraining(Self.plan(.gpipe)) { mesh, model in
      try await mesh.prepare()
      let microBatches = model.microBatches([1, 1, 1])
      try await mesh.feed(1, layouts(microBatches))
      // The step does not run: nobody makes room for the second.
      let isAnswered = Mutex(false)
      let before = try await workingBytes(mesh)
      async let error = status {
        try await feedPixels(mesh, 1, microBatches)
        isAnswered.withLock { $0 = true }
      }
      try await eventually("the first pixels are there") {
        try await workingBytes(mesh) == before + Self.tile
      }
      try await Task.sleep(for: .milliseconds(20))
      #expect(isAnswered.withLock { $0 } == false)
      try await mesh.abandon(1)
      #expect(await error?.code == .aborted)
      // What was fed of it is forgotten.
      let late = await status { try await feedPixels(mesh, 1, microBatches) }
      #expect(late?.code == .aborted)
      let steps = [model.microBatches([1, 0, 2])]
      let expected = try TrainedBits(model.trainer(), steps: steps)
      #expect(try await train(mesh, steps) == expected)
    }
  }

  @Test func `A step that waits for pixels is abandoned at once`() async throws {
    try await withTraining(Self.plan(.oneForwardOneBackward)) { mesh, model in
      try await mesh.prepare()
      let microBatches = model.microBatches([1, 1])
      try await mesh.feed(1, layouts(microBatches))
      let requests = try mesh.requests(1, microBatches: 2)
      async let errors = mesh.failures {
        _ = try await mesh.call($0, Methods.Trainer.step, requests[$0])
      }
      try await feedPixels(mesh, 1, [microBatches[0]])
      try await mesh.abandon(1)
      for error in await errors { #expect(error?.code == .aborted) }
      let steps = [microBatches]
      let expected = try TrainedBits(model.trainer(), steps: steps)
      #expect(try await train(mesh, steps) == expected)
    }
  }

  @Test func `Pixels that come twice, too early or of another size are refused`() async throws {
    try await withTraining { mesh, model in
      try await mesh.prepare()
      let microBatches = model.microBatches([1, 0, 2])
      let early = await status { try await feedPixels(mesh, 1, microBatches) }
      #expect(early?.code == .failedPrecondition)
      try await mesh.feed(1, microBatches)
      let twice = await status { try await feedPixels(mesh, 1, microBatches) }
      #expect(twice?.code == .alreadyExists)
      for (index, shape) in [(0, [2, 3, 56, 56]), (1, [1, 3, 56, 56])] {
        let error = await status {
          _ = try await mesh.call(
            0, Methods.Trainer.feed, FeedRequest(step: 1, microBatch: index),
            tensors: [Attachment(Tensor(zeros: .float32, shape))])
        }
        #expect(error?.code == .invalidArgument)
      }
      try await mesh.abandon(1)
    }
  }
}

@Suite(.timeLimit(.minutes(1))) struct PixelRoomTests {
  private let never: PixelRoom.IsAwaited = { false }

  private func pixels(_ count: Int) -> Tensor { Tensor(zeros: .float32, [count]) }

  @Test func `What does not fit waits until something has left`() async throws {
    let room = PixelRoom(bound: 40)
    var first: HeldPixels? = try await room.hold(pixels(6), isAwaited: never)
    let second = try await room.hold(pixels(4), isAwaited: never)
    let third = Task { try await room.hold(pixels(5), isAwaited: never) }
    let question = Task { try await room.wait(for: 24, isAwaited: never) }
    try await Task.sleep(for: .milliseconds(10))
    #expect(room.peakBytes == 40)
    #expect(first?.tensor.shape == [6])
    first = nil
    #expect(try await third.value.tensor.shape == [5])
    #expect(room.peakBytes == 40)
    question.cancel()
    _ = await question.result
    withExtendedLifetime(second) {}
  }

  @Test func `An empty room takes anything, and a full one what is waited for`() async throws {
    let room = PixelRoom(bound: 8)
    let first = try await room.hold(pixels(5), isAwaited: never)
    #expect(room.peakBytes == 20)
    let isAwaited = Mutex(false)
    let second = Task {
      try await room.hold(pixels(1)) { isAwaited.withLock { $0 } }
    }
    try await Task.sleep(for: .milliseconds(10))
    #expect(room.peakBytes == 20)
    isAwaited.withLock { $0 = true }
    room.reconsider()
    #expect(try await second.value.tensor.shape == [1])
    withExtendedLifetime(first) {}
  }

  @Test func `What is waited for waits itself where something is about to leave`() async throws {
    let room = PixelRoom(bound: 8)
    var first: HeldPixels? = try await room.hold(pixels(2), isAwaited: never)
    first?.leave()
    let second = Task { try await room.hold(pixels(1)) { true } }
    try await Task.sleep(for: .milliseconds(10))
    #expect(first != nil && room.peakBytes == 8)
    first = nil
    #expect(try await second.value.tensor.shape == [1])
    #expect(room.peakBytes == 8)
  }

  @Test func `Who waits no longer takes no room`() async throws {
    let room = PixelRoom(bound: 4)
    var first: HeldPixels? = try await room.hold(pixels(1), isAwaited: never)
    let task = Task { try await room.hold(pixels(1), isAwaited: never) }
    try await Task.sleep(for: .milliseconds(10))
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(first != nil)
    first = nil
    _ = try await room.hold(pixels(1), isAwaited: never)
    #expect(room.peakBytes == 4)
  }
}
