import Messages
import Synchronization
import Tensors
import Testing
import Training
import Transport

/// Steps of training that do not end well, in every phase.
@Suite(.timeLimit(.minutes(2))) struct TrainingFailureTests {
  typealias Plan = TrainingMesh.Plan
  static let plan = Plan(language: [[0..<2], [2..<4]])
  private let tiles = [1, 0, 2]

  /// After whatever went wrong, training from the start gives what it gives.
  private func trainsAsEver(
    _ mesh: TrainingMesh, _ model: TrainingModel, attempt: Int = 1
  ) async throws {
    let steps = [model.microBatches(tiles), model.microBatches([0, 1])]
    let expected = try TrainedBits(model.trainer(), steps: steps)
    let found = try await mesh.train(steps, attempt: attempt)
    #expect(found == expected)
  }

  /// Waits until the stage has begun the step.
  private func hasBegun(
    _ mesh: TrainingMesh, _ stage: Int, _ microBatches: [(MicroBatch, pixels: Tensor?)]
  ) async throws {
    try await eventually("stage \(stage) has begun") {
      await status { try await mesh.feed(1, microBatches, stages: [stage]) }?
        .message.contains("runs already") == true
    }
  }

  /// Begins the step in all stages but some, in which nothing ever happens.
  private func run(
    _ mesh: TrainingMesh, _ model: TrainingModel, without missing: Set<Int>,
    _ body: @escaping @Sendable () async throws -> Void
  ) async throws -> [RPCError?] {
    let microBatches = model.microBatches(tiles)
    try await mesh.feed(1, microBatches)
    let requests = try mesh.requests(1, microBatches: microBatches.count)
    async let errors = mesh.failures { stage in
      guard !missing.contains(stage) else { return }
      _ = try await mesh.call(stage, Methods.Trainer.step, requests[stage])
    }
    for stage in 0..<4 where !missing.contains(stage) {
      try await hasBegun(mesh, stage, microBatches)
    }
    try await body()
    return await errors
  }

  @Test(arguments: 0..<4)
  func `A step that waits for a stage is abandoned at once, everywhere`(
    _ missing: Int
  ) async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      let errors = try await run(mesh, model, without: [missing]) {
        try await mesh.abandon(1)
      }
      for (stage, error) in errors.enumerated() where stage != missing {
        #expect(error?.code == .aborted, "\(error?.description ?? "no error")")
      }
      try await trainsAsEver(mesh, model)
    }
  }

  @Test func `A step with gradients that wait for their update is abandoned`() async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      _ = try await mesh.step(1, model.microBatches(tiles))
      try await mesh.abandon(1)
      let error = await status { try await mesh.update(1) }
      #expect(error?.code == .failedPrecondition)
      try await trainsAsEver(mesh, model)
    }
  }

  @Test func `What was fed and not begun is abandoned`() async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      try await mesh.feed(1, model.microBatches(tiles))
      try await mesh.feed(2, model.microBatches(tiles))
      try await mesh.abandon(1)
      try await mesh.abandon(2)
      try await mesh.abandon(3)
      try await trainsAsEver(mesh, model)
    }
  }

  @Test(arguments: 0..<4)
  func `A step that its caller cancels ends in all stages`(_ cancelled: Int) async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      // The last stage is missing, so that all others wait.
      let microBatches = model.microBatches(tiles)
      try await mesh.feed(1, microBatches)
      let requests = try mesh.requests(1, microBatches: microBatches.count)
      let missing = cancelled == 3 ? 2 : 3
      let calls = (0..<4).filter { $0 != missing }.map { stage in
        (
          stage,
          Task { _ = try await mesh.call(stage, Methods.Trainer.step, requests[stage]) }
        )
      }
      for (stage, _) in calls { try await hasBegun(mesh, stage, microBatches) }
      for (stage, call) in calls where stage == cancelled {
        call.cancel()
        #expect(await status { try await call.value }?.code == .cancelled)
      }
      // Whoever had no call under way with that stage hears of it from the gateway.
      try await mesh.abandon(1)
      for (stage, call) in calls where stage != cancelled {
        let error = await status { try await call.value }
        #expect(error?.code == .aborted, "stage \(stage): \(error?.description ?? "no error")")
      }
      try await trainsAsEver(mesh, model)
    }
  }

  @Test(arguments: 0..<4)
  func `A stage that goes away ends the step, and a new one takes its place`(
    _ lost: Int
  ) async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      let errors = try await run(mesh, model, without: [lost == 3 ? 0 : 3]) {
        await mesh.hosts[lost].stop()
        for stage in 0..<4 where stage != lost {
          _ = try await mesh.call(stage, Methods.Trainer.abandon, AbandonRequest(step: 1))
        }
      }
      #expect(errors[lost]?.code == .unavailable)
      try await mesh.hosts[lost].start()
      try await eventually("the stage is back") {
        await status { _ = try await mesh.call(lost, Methods.Stage.describe, DescribeRequest()) }
          == nil
      }
      try await mesh.prepare()
      try await trainsAsEver(mesh, model)
    }
  }

  @Test func `An activation of an abandoned step is turned away`() async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      try await mesh.feed(1, model.microBatches([1]))
      try await mesh.abandon(1)
      let late = Attachment(Tensor(zeros: .float32, [12, 64]))
      let error = await status {
        _ = try await mesh.call(
          3, Methods.Trainer.forward, ForwardRequest(step: 1), tensors: [late])
      }
      #expect(error?.code == .aborted)
      // Also while the next attempt is under way.
      try await mesh.feed(1, model.microBatches([1]), attempt: 1)
      let again = await status {
        _ = try await mesh.call(
          3, Methods.Trainer.forward, ForwardRequest(step: 1), tensors: [late])
      }
      #expect(again?.code == .aborted)
      try await mesh.abandon(1)
    }
  }

  // MARK: Wrong calls

  struct WrongCall: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let code: StatusCode
    /// Of the last stage.
    let call: @Sendable (TrainingMesh, TrainingModel) async throws -> Void

    init(
      _ what: String, _ code: StatusCode,
      _ call: @escaping @Sendable (TrainingMesh, TrainingModel) async throws -> Void
    ) {
      testDescription = what
      self.code = code
      self.call = call
    }
  }

  static let wrongCalls = [
    WrongCall("a step that was not fed", .failedPrecondition) { mesh, _ in
      _ = try await mesh.call(
        3, Methods.Trainer.step, mesh.requests(1, microBatches: 1)[3])
    },
    WrongCall("an update without a step", .failedPrecondition) { mesh, _ in
      try await mesh.update(1)
    },
    WrongCall("an update of NaN", .invalidArgument) { mesh, _ in
      try await mesh.update(1, learningRate: .nan)
    },
    WrongCall("an activation of a step that is not open", .failedPrecondition) { mesh, _ in
      _ = try await mesh.call(
        3, Methods.Trainer.forward, ForwardRequest(step: 8),
        tensors: [Attachment(Tensor(zeros: .float32, [12, 64]))])
    },
    WrongCall("an activation of a micro-batch that was not fed", .failedPrecondition) {
      mesh, model in
      try await mesh.feed(1, model.microBatches([1]))
      _ = try await mesh.call(
        3, Methods.Trainer.forward, ForwardRequest(step: 1, microBatch: 7),
        tensors: [Attachment(Tensor(zeros: .float32, [12, 64]))])
    },
    WrongCall("an activation of another shape", .invalidArgument) { mesh, model in
      try await mesh.feed(1, model.microBatches([1]))
      _ = try await mesh.call(
        3, Methods.Trainer.forward, ForwardRequest(step: 1),
        tensors: [Attachment(Tensor(zeros: .float32, [13, 64]))])
    },
    WrongCall("an activation for a slice that is not there", .invalidArgument) { mesh, model in
      try await mesh.feed(1, model.microBatches([1]))
      _ = try await mesh.call(
        3, Methods.Trainer.forward, ForwardRequest(step: 1, chunk: 1),
        tensors: [Attachment(Tensor(zeros: .float32, [12, 64]))])
    },
    WrongCall("a step with an action listed twice", .invalidArgument) { mesh, model in
      try await mesh.feed(1, model.microBatches([1]))
      var request = try mesh.requests(1, microBatches: 1)[3]
      request.actions += request.actions
      _ = try await mesh.call(3, Methods.Trainer.step, request)
    },
    WrongCall("a step that goes back before it goes forward", .invalidArgument) { mesh, model in
      try await mesh.feed(1, model.microBatches([1]))
      var request = try mesh.requests(1, microBatches: 1)[3]
      request.actions.reverse()
      _ = try await mesh.call(3, Methods.Trainer.step, request)
    },
    WrongCall("a step that leaves a micro-batch out", .invalidArgument) { mesh, model in
      try await mesh.feed(1, model.microBatches([1, 1]))
      var request = try mesh.requests(1, microBatches: 1)[3]
      request.microBatches = 2
      _ = try await mesh.call(3, Methods.Trainer.step, request)
    },
    WrongCall("a micro-batch of no sample", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(3, Methods.Trainer.feed, FeedRequest(step: 1))
    },
    WrongCall("a micro-batch of more tokens than there are", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        1, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 1 << 31)]))
    },
    WrongCall("a micro-batch of more tiles than there are", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        1, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4, tiles: 1 << 31)]))
    },
    WrongCall("turns of more tokens than there are", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        1, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4, turns: [2, 1 << 31])]))
    },
    WrongCall("turns behind nothing", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        1, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4, turns: [2, 2])]))
    },
    WrongCall("a turn of no token", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        1, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4, turns: [2, 0])]))
    },
    WrongCall("fewer labels than tokens", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        3, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4)], labels: [1, 2]))
    },
    WrongCall("pixels for a stage that takes none", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        1, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4, tiles: 1)]),
        tensors: [Attachment(Tensor(zeros: .float32, [1, 3, 56, 56]))])
    },
    WrongCall("pixels of another size", .invalidArgument) { mesh, _ in
      _ = try await mesh.call(
        0, Methods.Trainer.feed,
        FeedRequest(step: 1, samples: [MicroBatchSample(tokens: 4, tiles: 1)]),
        tensors: [Attachment(Tensor(zeros: .float32, [1, 3, 57, 56]))])
    },
    WrongCall("more steps fed than are open at a time", .failedPrecondition) { mesh, model in
      for step in 1...3 { try await mesh.feed(UInt64(step), model.microBatches([1])) }
    },
    WrongCall("recomputation of an unknown kind", .invalidArgument) { mesh, _ in
      var request = mesh.prepareRequest()
      request.recompute = "half"
      _ = try await mesh.call(3, Methods.Trainer.prepare, request)
    },
    WrongCall("a tensor that is not here", .notFound) { mesh, _ in
      _ = try await mesh.fetch(["mlp1.0.weight"], "value", from: 3)
    },
    WrongCall("65 tensors at a time", .invalidArgument) { mesh, _ in
      _ = try await mesh.fetch(Array(repeating: "a", count: 65), "value", from: 3)
    },
  ]

  @Test(arguments: wrongCalls)
  func `A call that makes no sense is refused and does no harm`(_ wrong: WrongCall) async throws {
    try await withTraining(Self.plan) { mesh, model in
      try await mesh.prepare()
      let error = await status { try await wrong.call(mesh, model) }
      #expect(error?.code == wrong.code, "\(error?.description ?? "no error")")
      for step in 1...3 { try await mesh.abandon(UInt64(step)) }
      try await trainsAsEver(mesh, model)
    }
  }

  @Test func `A stage that was not prepared says so`() async throws {
    try await withTraining(Self.plan) { mesh, model in
      let error = await status { try await mesh.feed(1, model.microBatches([1])) }
      #expect(error?.code == .failedPrecondition)
      #expect(error?.message.contains("Prepare") == true)
      #expect(await status { try await mesh.update(1) }?.code == .failedPrecondition)
      try await mesh.abandon(1)
    }
  }

  @Test func `A folder that is no checkpoint is refused, and the stage serves on`() async throws {
    try await withTraining(Self.plan) { mesh, model in
      let error = await status { try await mesh.prepare(resume: "/nowhere") }
      #expect(error?.code == .failedPrecondition)
      let again = await status { try await mesh.feed(1, model.microBatches([1])) }
      #expect(again?.code == .failedPrecondition)
      try await mesh.prepare()
      try await trainsAsEver(mesh, model)
    }
  }
}
