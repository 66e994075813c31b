import Checkpoint
import InternVL
import Kernels
import Messages
import Support
import Synchronization
import Tensors
import Testing
import Training
import Transport

/// Stages that answer while they train, and write checkpoints meanwhile.
@Suite(.timeLimit(.minutes(2))) struct TrainingServeTests {
  typealias Plan = TrainingMesh.Plan

  static let plans = [
    Plan(vision: [0..<1, 1..<2], language: [[0..<2], [2..<4]]),
    Plan(language: [[0..<1, 2..<3], [1..<2, 3..<4]], schedule: .interleaved),
  ]
  private static let steps = [[1, 0, 2], [0, 1], [1, 1]]

  /// Logits of a prompt with a picture, as the language stages give them.
  private func logits(
    _ mesh: TrainingMesh, sequence: UInt64, pixels: Tensor
  ) async throws -> UInt64 {
    let first = try #require(mesh.names.firstIndex(of: "language-0"))
    _ = try await mesh.call(
      0, Methods.VisionEncoder.encode, EncodeRequest(sequence: sequence),
      tensors: [Attachment(pixels)])
    let step = SequenceStep(
      sequence: sequence, tokens: Self.prompt,
      imageRows: Self.prompt.enumerated().map {
        $1 == TrainingModel.imageToken ? Int32($0) : 0
      }, promptTokens: Self.prompt.count, sample: true, captureLogits: true)
    let reply = try await mesh.call(
      first, Methods.LanguageModel.step, StepRequest(steps: [step]))
    for stage in first..<mesh.names.count {
      _ = try await mesh.call(
        stage, Methods.LanguageModel.end, EndRequest(sequences: [sequence]))
    }
    return try #require(reply.tensor(named: "logits")).digest
  }

  private static let prompt: [Int32] =
    [3] + Array(repeating: TrainingModel.imageToken, count: 4)
    + [7, 11, 13]

  /// The same of the whole model.
  private func logits(_ model: InternVLModel, pixels: Tensor) throws -> UInt64 {
    let rows = try model.projectorOutput(model.visionOutput(pixels[0]))
    return try model.prefill(
      0, ids: Self.prompt, images: rows, placeholder: TrainingModel.imageToken
    ).digest
  }

  @Test(arguments: plans)
  func `Answers come from the last updated weights, also while a step is under way`(
    _ plan: Plan
  ) async throws {
    try await withTraining(plan) { mesh, model in
      var random = SeededRandom(9)
      let pixels = random.tensor([1, 3, 56, 56])
      func trained(_ count: Int) throws -> UInt64 {
        let trainer = try ModelTrainer(
          model.configuration,
          weights: TrainingWeights(model: CheckpointReader(folder: model.folder)),
          device: CPUDevice(threads: 1), options: TrainingModel.options, cacheTokens: 64,
          imageToken: TrainingModel.imageToken)
        _ = try TrainedBits(
          trainer, steps: Self.steps.prefix(count).map { model.microBatches($0) })
        return try logits(trainer.model, pixels: pixels)
      }
      let before = try await logits(mesh, sequence: 1, pixels: pixels)
      #expect(try before == trained(0))
      try await mesh.prepare()
      let first = try await mesh.step(1, model.microBatches(Self.steps[0]))
      #expect(try await logits(mesh, sequence: 2, pixels: pixels) == before)
      try await mesh.update(1)
      let after = try trained(1)
      #expect(after != before)
      #expect(try await logits(mesh, sequence: 3, pixels: pixels) == after)

      // A step that stands still for want of its last stage.
      let microBatches = model.microBatches(Self.steps[1])
      try await mesh.feed(2, microBatches)
      let requests = try mesh.requests(2, microBatches: microBatches.count)
      let last = mesh.names.count - 1
      async let waiting = mesh.each { stage in
        if stage == last { try await Task.sleep(for: .milliseconds(100)) }
        return try await mesh.call(stage, Methods.Trainer.step, requests[stage]).message
      }
      #expect(try await logits(mesh, sequence: 4, pixels: pixels) == after)
      let second = try await waiting
      try await mesh.update(2)
      #expect(try await logits(mesh, sequence: 5, pixels: pixels) == trained(2))

      var found = TrainedBits()
      found.take(first)
      found.take(second)
      try await mesh.fetch(into: &found)
      let expected = try TrainedBits(
        model.trainer(), steps: Self.steps.prefix(2).map { model.microBatches($0) })
      #expect(found == expected)
    }
  }

  @Test(arguments: plans)
  func `Answers change no bit of training`(_ plan: Plan) async throws {
    try await withTraining(plan) { mesh, model in
      let steps = Self.steps.map { model.microBatches($0) }
      let expected = try TrainedBits(model.trainer(), steps: steps)
      try await mesh.prepare()
      let isOver = Atomic<Bool>(false)
      let count = Counter()
      async let chat: Void = {
        var random = SeededRandom(9)
        let pixels = random.tensor([1, 3, 56, 56])
        var sequence: UInt64 = 1
        while !isOver.load(ordering: .relaxed) {
          _ = try await logits(mesh, sequence: sequence, pixels: pixels)
          sequence += 1
          count.add()
        }
      }()
      let found = try await mesh.train(steps)
      isOver.store(true, ordering: .relaxed)
      try await chat
      #expect(found == expected)
      #expect(count.value > 0)
    }
  }

  // MARK: Checkpoints

  /// Writes a checkpoint as a gateway has it written.
  private func save(
    _ mesh: TrainingMesh, _ model: TrainingModel, _ replies: [PrepareTrainingReply],
    updates: Int, to output: String, saveType: ScalarType? = nil,
    during body: @Sendable () async throws -> Void = {}
  ) async throws -> String {
    let layout = try CheckpointLayout(
      stages: replies.map { reply in
        reply.parameters.map {
          .init(
            name: $0.name, shape: $0.shape, storedType: $0.scalarType, isTrained: $0.isTrained)
        }
      }, configuration: model.configuration, source: CheckpointReader(folder: model.folder),
      saveType: saveType)
    let writer = try CheckpointWriter.begin(
      output: output, step: updates, layout: layout,
      source: CheckpointReader(folder: model.folder))
    async let saved = mesh.each { stage in
      let share = layout.shares[stage]
      let request = SaveRequest(
        folder: writer.folder,
        model: share.model.map { SavedShard(path: $0.path, names: $0.names) },
        optimizerPath: share.optimizer?.path, scalarType: saveType, updates: updates)
      return try await mesh.call(stage, Methods.Trainer.save, request).message.bytes
    }
    try await body()
    #expect(try await saved.allSatisfy { $0 > 0 })
    return try writer.commit(
      state: TrainerState(globalStep: updates, updates: updates), saveType: saveType
    ).path
  }

  @Test(arguments: [nil, ScalarType.float32, .bfloat16])
  func `Training goes on from a checkpoint in another split, bit for bit`(
    _ saveType: ScalarType?
  ) async throws {
    let output = try SocketDirectory()
    defer { output.remove() }
    let (expected, checkpoint) = try await withTraining(Self.plans[0]) { mesh, model in
      let steps = Self.steps.map { model.microBatches($0) }
      let replies = try await mesh.prepare()
      #expect(replies.allSatisfy { $0.updates == 0 && $0.trainingBytes > 0 })
      _ = try await mesh.step(1, steps[0])
      try await mesh.update(1)
      let checkpoint = try await save(
        mesh, model, replies, updates: 1, to: output.path, saveType: saveType)
      return (try TrainedBits(model.trainer(), steps: Array(steps.prefix(2))), checkpoint)
    }
    try await withTraining(Self.plans[1]) { mesh, model in
      let replies = try await mesh.prepare(resume: checkpoint)
      #expect(replies.allSatisfy { $0.updates == 1 })
      var found = TrainedBits()
      found.take(try await mesh.step(2, model.microBatches(Self.steps[1])))
      try await mesh.update(2)
      try await mesh.fetch(into: &found)
      #expect(found.losses == Array(expected.losses.suffix(found.losses.count)))
      #expect(found.norms == expected.norms)
      #expect(found.parameters == expected.parameters)
      #expect(found.secondMoments == expected.secondMoments)
    }
  }

  @Test func `A checkpoint has the moment it was asked for, whatever is trained meanwhile`()
    async throws
  {
    let output = try SocketDirectory()
    defer { output.remove() }
    try await withTraining(Self.plans[0]) { mesh, model in
      let steps = Self.steps.map { model.microBatches($0) }
      let replies = try await mesh.prepare()
      _ = try await mesh.step(1, steps[0])
      try await mesh.update(1)
      let quiet = try await save(mesh, model, replies, updates: 1, to: "\(output.path)/quiet")
      try await mesh.feed(2, steps[1])
      let requests = try mesh.requests(2, microBatches: steps[1].count)
      let busy = try await save(mesh, model, replies, updates: 1, to: "\(output.path)/busy") {
        _ = try await mesh.each {
          try await mesh.call($0, Methods.Trainer.step, requests[$0]).message
        }
      }
      let (first, second) = try (
        TrainingStateReader(folder: quiet), TrainingStateReader(folder: busy)
      )
      for name in first.trainedNames {
        #expect(
          try first.value(of: name)?.digest == second.value(of: name)?.digest
            && first.secondMoment(of: name)?.digest == second.secondMoment(of: name)?.digest,
          "\(name)")
      }
      try await mesh.update(2)
      // Too late for the checkpoint after update 1.
      let error = await status {
        _ = try await mesh.call(
          0, Methods.Trainer.save, SaveRequest(folder: output.path, updates: 1))
      }
      #expect(error?.code == .outOfRange)
    }
  }

  @Test(arguments: ["../x", "/x", "a//b", ""])
  func `A path that leads out of the folder is refused`(_ path: String) async throws {
    try await withTraining { mesh, _ in
      try await mesh.prepare()
      let error = await status {
        _ = try await mesh.call(
          0, Methods.Trainer.save,
          SaveRequest(folder: "/nowhere", model: [SavedShard(path: path, names: [])]))
      }
      #expect(error?.code == .invalidArgument)
    }
  }
}
