import Checkpoint
import InternVL
import Kernels
import Messages
import Sequencer
import StageRuntime
import Testing
import Training
import Transport

/// A quantised folder behind a mesh: the bits of one process, and no training.
@Suite(.timeLimit(.minutes(2))) struct QuantisedModelTests {
  /// Runs `body` with a golden model quantised, in a folder that ends with it.
  private func withQuantised<Result>(
    _ model: GoldenModel, _ type: QuantisationRecipe.Storage,
    _ body: (GoldenModel) async throws
      -> Result
  ) async throws -> Result {
    let directory = try SocketDirectory()
    defer { directory.remove() }
    var quantised = model
    quantised.otherFolder = "\(directory.path)/model"
    let work = try ModelQuantisation(source: model.folder, recipe: QuantisationRecipe(type)) {
      try Quantiser.quantise($0, as: $1, into: $2)
    }
    _ = try work.write(to: quantised.folder)
    return try await body(quantised)
  }

  @Test(arguments: [GoldenModel.tiny, .sharded], [QuantisationRecipe.Storage.q8, .q4])
  func `A mesh gives the bits of one process`(
    _ model: GoldenModel, _ type: QuantisationRecipe.Storage
  ) async throws {
    try await withQuantised(model, type) { quantised in
      let turns = [
        ChatTurn.system("Be brief."), .user("What is this?\n<image>"), .assistant("A picture."),
        .user("And <image> this?"),
      ]
      let pictures = try quantised.pictures("second.jpg", "image.jpg")
      let expected = try quantised.compute(turns, pictures, tokens: 24)
      let floats = try model.compute(turns, pictures, tokens: 1)
      #expect(!expected.logits.elementsEqual(floats.logits), "the weights are not quantised")
      for stages in [1, 2] {
        let plan = MeshPlan(quantised, visionStages: stages, languageStages: stages)
        try await withMesh(plan) { mesh in
          let found = try await mesh.client.compute(turns, pictures, tokens: 24)
          #expect(found.promptTokens == expected.promptTokens)
          // Not the arrays themselves: a failure would print them.
          #expect(found.pixels.elementsEqual(expected.pixels), "pixels, \(stages) stages")
          #expect(found.vision.elementsEqual(expected.vision), "vision, \(stages) stages")
          #expect(found.projector.elementsEqual(expected.projector), "projector, \(stages) stages")
          #expect(found.logits.elementsEqual(expected.logits), "logits, \(stages) stages")
          #expect(found.tokens == expected.tokens)
        }
      }
    }
  }

  @Test(arguments: [QuantisationRecipe.Storage.q8, .q4])
  func `A stage refuses to train and goes on serving`(
    _ type: QuantisationRecipe.Storage
  ) async throws {
    try await withQuantised(.tiny, type) { quantised in
      let turns = [ChatTurn.user("What is this?\n<image>")]
      let pictures = try quantised.pictures("image.jpg")
      let expected = try quantised.compute(turns, pictures, tokens: 4)
      try await withMesh(MeshPlan(quantised, visionStages: 1, languageStages: 2)) { mesh in
        for stage in mesh.stages.keys.sorted() {
          for isFrozen in [false, true] {
            let request = PrepareTrainingRequest(
              seed: 1, trainVision: !isFrozen, trainProjector: !isFrozen, trainLanguage: !isFrozen,
              recompute: Recompute.full.rawValue, beta1: 0.9, beta2: 0.999, epsilon: 1e-8,
              decay: WeightDecayGrouping.all.rawValue)
            let error = await status {
              _ = try await mesh.call(stage, Methods.Trainer.prepare, request)
            }
            #expect(error?.code == .failedPrecondition, "\(stage)")
            #expect(error?.message.contains("is stored as panels") == true, "\(stage): \(error)")
          }
        }
        let found = try await mesh.client.compute(turns, pictures, tokens: 4)
        #expect(found.logits.elementsEqual(expected.logits))
        #expect(found.tokens == expected.tokens)
      }
    }
  }

  @Test func `A run refuses it by name before anything is written`() async throws {
    try await withQuantised(.tiny, .q4) { quantised in
      try await withRunData { data in
        let floats = data.configuration("run")
        let steps = try await DataSteps.check(floats).steps
        var configuration = floats
        configuration.model = quantised.folder
        let stages = InProcessStages(model: quantised.folder, threads: 1)
        do {
          _ = try TrainingRun(
            configuration, stages: stages, source: steps, logger: .quiet
          ) { _ in }
          Issue.record("a quantised model is trained")
        } catch CheckpointError.quantisedModel(let folder, let purpose) {
          #expect(folder == quantised.folder && purpose == "cannot be trained")
        }
        #expect(CheckpointFolder.all(in: configuration.output).isEmpty)
      }
    }
  }
}
