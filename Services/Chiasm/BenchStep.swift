import Checkpoint
import InternVL
import Logging
import Sequencer
import Tensors
import Text
import Training
import Transport

/// A step of training of a whole model: one picture and 512 tokens, 256 of them the picture's
/// rows, all parameters, AdamW, clipped to a norm of 1.
struct BenchStep: Sendable {
  static let tokens = 512

  let stages: any TrainingStages
  private let microBatch: MicroBatch
  private let pixels: Tensor

  struct Outcome: Sendable {
    var seconds: Double
    var loss: Double
    var norm: Double
  }

  /// - Parameters:
  ///   - folder: the model that `stages` hold.
  ///   - pixels: [1, 3, H, W].
  /// - Throws: `CheckpointError`, `TextError`, what the stages throw.
  init(_ stages: any TrainingStages, folder: String, pixels: Tensor, recompute: Recompute)
    async throws
  {
    self.stages = stages
    self.pixels = pixels
    let configuration = try ModelConfiguration.load(folder: folder)
    guard let id = try Tokenizer(folder: folder).id(of: ImagePlaceholders.context) else {
      throw RPCError(.failedPrecondition, "the tokenizer of \(folder) has no token for pictures")
    }
    let imageToken = Int32(id)
    let pictured = 1..<1 + configuration.imageTokenCount
    let ids = (0..<BenchStep.tokens).map { position in
      let token = BenchWork.token(position, vocabulary: configuration.language.vocabularySize)
      if pictured.contains(position) { return imageToken }
      return token == imageToken ? token + 1 : token
    }
    let labels = ids.enumerated().map { $0 < pictured.upperBound ? StepPlan.ignored : $1 }
    let plan = try StepPlan(
      [[StepPlan.Sample(key: 0, ids: ids, labels: labels, tiles: 1)]], weighting: .tokens)
    microBatch = plan.microBatches[0]
    var options = TrainingOptions()
    options.weightDecay = 0.05
    options.recompute = recompute
    _ = try await stages.prepare(TrainingPreparation(options: options))
  }

  func run(_ number: Int) async throws -> Outcome {
    let clock = ContinuousClock()
    let began = clock.now
    let pixels = pixels
    let outcome = try await stages.step(
      StepWork(
        step: UInt64(number), microBatches: [microBatch], schedule: .oneForwardOneBackward
      ) { _ in pixels })
    let norm = outcome.gradientNorm
    try await stages.update(
      ParameterUpdate(
        step: UInt64(number), learningRate: 1e-5, gradientScale: min(1, 1 / (norm + 1e-6))))
    let loss = outcome.losses.reduce(0) { $0 + $1.sum } * microBatch.lossScale
    return Outcome(seconds: (clock.now - began) / .seconds(1), loss: loss, norm: norm)
  }
}
