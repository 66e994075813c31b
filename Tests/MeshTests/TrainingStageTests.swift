import Kernels
import Messages
import Tensors
import Testing
import Training
import Transport

/// Stages train what one process trains, bit for bit.
@Suite(.timeLimit(.minutes(2))) struct TrainingStageTests {
  typealias Plan = TrainingMesh.Plan

  /// Two without pictures, one with two.
  static let tiles = [[1, 0, 2, 1], [0, 1, 1, 0]]

  static let plans = [
    Plan(),
    Plan(vision: [0..<1, 1..<2], language: [[0..<1], [1..<2], [2..<4]]),
    Plan(vision: [0..<1, 1..<2], language: [[0..<2], [2..<4]], schedule: .gpipe),
    Plan(vision: [0..<1, 1..<2], language: [[0..<1], [1..<4]], schedule: .zeroBubble),
    Plan(language: [[0..<1, 2..<3], [1..<2, 3..<4]], schedule: .interleaved),
    Plan(language: [[0..<1, 2..<3], [1..<2, 3..<4]], schedule: .interleaved, usesTCP: true),
    Plan(language: [[0..<2], [2..<4]], usesTCP: true, recompute: .none),
    Plan(language: [[0..<2], [2..<4]], schedule: .serial, recompute: .selective),
    // Room for hardly more than one tensor.
    Plan(
      vision: [0..<1, 1..<2], language: [[0..<2], [2..<4]], schedule: .gpipe, arenaBytes: 8192),
    Plan(
      language: [[0..<1, 2..<3], [1..<2, 3..<4]], schedule: .interleaved, arenaBytes: 8192),
  ]

  @Test(arguments: plans)
  func `Stages give the bits of one process`(_ plan: Plan) async throws {
    try await withTraining(plan) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      let found = try await mesh.train(steps)
      #expect(found.losses == expected.losses)
      #expect(found.rows == expected.rows)
      #expect(found.norms == expected.norms)
      #expect(found.parameters == expected.parameters)
      #expect(found.secondMoments == expected.secondMoments)
      #expect(found.norms.count > 50)
    }
  }

  @Test(.enabled(if: Executables.areBuilt, "\(Executables.comment)"))
  func `Child processes behind pipes give the bits of one process`() async throws {
    let plan = Plan(vision: [0..<1, 1..<2], language: [[0..<2], [2..<4]], areChildren: true)
    try await withTraining(plan) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      #expect(try await mesh.train(steps) == expected)
    }
  }

  @Test func `A prepared stage begins anew when it is prepared again`() async throws {
    try await withTraining(Plan(language: [[0..<2], [2..<4]])) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      try await mesh.prepare()
      let first = try await mesh.train(steps)
      // In the middle of a step.
      _ = try await mesh.step(3, steps[0])
      try await mesh.prepare()
      #expect(try await mesh.train(steps) == first)
    }
  }

  @Test func `A skipped update leaves the parameters as they were and drops the gradients`()
    async throws
  {
    try await withTraining(Plan(language: [[0..<2], [2..<4]])) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      _ = try await mesh.step(7, steps[1])
      try await mesh.update(7, skip: true)
      #expect(try await mesh.train(steps) == expected)
    }
  }

  @Test func `The loss alone leaves everything as it was`() async throws {
    try await withTraining(
      Plan(language: [[0..<1, 2..<3], [1..<2, 3..<4]], schedule: .interleaved)
    ) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      let losses = try model.trainer().losses(9, microBatches: steps[0])
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      let replies = try await mesh.step(9, steps[0], forwardOnly: true)
      let found = replies.flatMap(\.losses).sorted { $0.microBatch < $1.microBatch }
      #expect(found.map(\.sum.bitPattern) == losses.map(\.sum.bitPattern))
      #expect(found.map(\.rows) == losses.map(\.rows))
      #expect(replies.allSatisfy { $0.norms.isEmpty })
      #expect(try await mesh.train(steps) == expected)
    }
  }

  struct Frozen: Sendable, CustomTestStringConvertible {
    var vision = false
    var projector = false
    var language = false
    var testDescription: String { "trains vision \(vision), mlp \(projector), llm \(language)" }
  }

  @Test(arguments: [
    Frozen(projector: true, language: true), Frozen(language: true), Frozen(projector: true),
    Frozen(vision: true),
  ])
  func `Frozen parts get no gradient, and the others the bits of one process`(
    _ parts: Frozen
  ) async throws {
    try await withTraining(Plan(vision: [0..<1, 1..<2], language: [[0..<2], [2..<4]])) {
      mesh, model in
      var options = TrainingModel.options
      options.trainsVision = parts.vision
      options.trainsProjector = parts.projector
      options.trainsLanguage = parts.language
      let steps = Self.tiles.map { model.microBatches($0) }
      let expected = try TrainedBits(model.trainer(options), steps: steps)
      try await mesh.prepare(options)
      #expect(try await mesh.train(steps) == expected)
    }
  }

  @Test func `Every action is timed, and what was kept at once is counted`() async throws {
    try await withTraining(
      Plan(language: [[0..<2], [2..<4]], schedule: .gpipe)
    ) { mesh, model in
      try await mesh.prepare()
      let replies = try await mesh.step(1, model.microBatches([1, 0, 1]))
      // What passes the vision encoder and the projector by is no action of theirs.
      #expect(replies.map(\.timings.count) == [4, 4, 6, 6])
      for reply in replies {
        #expect(reply.originMicroseconds > 0)
        let ends = reply.timings.map { $0.startMicroseconds + $0.durationMicroseconds }
        #expect(zip(ends, reply.timings.dropFirst()).allSatisfy { $0 <= $1.startMicroseconds })
        #expect(reply.peakSavedBytes > 0)
      }
      #expect(replies.map(\.peakSavedMicroBatches) == [2, 2, 3, 3])
      let description = try await mesh.call(0, Methods.Stage.describe, DescribeRequest()).message
      #expect(description.workingBytes > replies[0].peakSavedBytes)
    }
  }

  @Test func `A tensor that never fits into the shared memory goes another way`() async throws {
    try await withTraining(Plan(language: [[0..<2], [2..<4]], arenaBytes: 4096)) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      #expect(try await mesh.train(steps) == expected)
    }
  }

  @Test func `A released stage holds nothing of the training, and can be prepared again`()
    async throws
  {
    try await withTraining(Plan(language: [[0..<2], [2..<4]])) { mesh, model in
      let steps = Self.tiles.map { model.microBatches($0) }
      func working() async throws -> [Int] {
        try await mesh.each {
          try await mesh.call($0, Methods.Stage.describe, DescribeRequest()).message.workingBytes
        }
      }
      let prepared = try await mesh.prepare()
      let first = try await mesh.train(steps)
      try await mesh.feed(3, steps[0])
      let during = try await working()
      _ = try await mesh.each {
        try await mesh.call($0, Methods.Trainer.release, ReleaseTrainingRequest())
      }
      for (index, after) in try await working().enumerated() {
        #expect(after <= during[index] - prepared[index].trainingBytes)
      }
      let error = await status { try await mesh.feed(3, steps[0]) }
      #expect(error?.code == .failedPrecondition)
      try await mesh.prepare()
      #expect(try await mesh.train(steps) == first)
    }
  }

  @Test func `The end of the session that prepared a stage ends its training`() async throws {
    try await withTraining(Plan(language: [[0..<2], [2..<4]])) { mesh, model in
      try await mesh.prepare()
      // Another's session does not.
      let other = Channel(await mesh.hosts[3].endpoint)
      for (channel, isOver) in [(other, false), (mesh.channels[3], true)] {
        let session = Task {
          for try await _ in channel.stream(Methods.Stage.attach, AttachRequest(session: 7)) {
            return
          }
        }
        _ = try await session.value
        try await mesh.feed(1, model.microBatches([0]), stages: isOver ? [0, 1, 2] : nil)
        if isOver {
          try await eventually("the stage lets go") {
            await status { try await mesh.feed(1, model.microBatches([0]), stages: [3]) }?.code
              == .failedPrecondition
          }
        }
      }
      other.close()
    }
  }

  @Test func `A stage that does not see the gateway's folder refuses to train`() async throws {
    try await withTraining(Plan(language: [[0..<2], [2..<4]])) { mesh, model in
      var request = mesh.prepareRequest()
      request.sharedFiles = ["\(model.folder)/config.json"]
      _ = try await mesh.call(3, Methods.Trainer.prepare, request)
      request.sharedFiles.append("/nowhere/output/mark")
      let error = await status { [request] in
        _ = try await mesh.call(3, Methods.Trainer.prepare, request)
      }
      #expect(error?.code == .failedPrecondition)
      #expect(error?.message.contains("/nowhere/output") == true)
      // It trains as before.
      try await mesh.feed(1, model.microBatches([1]), stages: [3])
    }
  }
}
