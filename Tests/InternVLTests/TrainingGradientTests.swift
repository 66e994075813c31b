import Checkpoint
import InternVL
import Kernels
import Support
import Tensors
import Testing
import Training

/// Gradients against differences of the loss, where there is no reference: with branches and
/// inputs dropped, and with adapters.
@Suite struct TrainingGradientTests {
  /// The derivative of the batch's loss along `direction` of a parameter.
  private func slope(
    _ trainer: ModelTrainer, _ trainingCase: TrainingCase, _ parameter: Parameter,
    _ direction: [Float], steepness: Float
  ) throws -> Double {
    let start = parameter.value.floats
    func loss(_ distance: Float) throws -> Double {
      parameter.value.withElements(of: Float.self) { elements in
        for index in elements.indices {
          elements[index] = start[index] + distance * direction[index]
        }
      }
      parameter.valueDidChange()
      let losses = try trainer.losses(3, microBatches: trainingCase.microBatches)
      return losses.reduce(0) { $0 + $1.sum } * trainingCase.microBatches[0].0.lossScale
    }
    // Of fourth order; the steeper, the nearer.
    let step = 4e-3 / max(1, steepness / 4)
    let near = try loss(step) - loss(-step)
    let far = try loss(2 * step) - loss(-2 * step)
    _ = try loss(0)
    return (8 * near - far) / Double(12 * step)
  }

  private func check(
    _ trainer: ModelTrainer, _ trainingCase: TrainingCase, sourceLocation: SourceLocation
  ) throws {
    _ = try trainer.step(3, microBatches: trainingCase.microBatches)
    var random = SeededRandom(5)
    for parameter in trainer.parameters {
      let gradient = parameter.gradient.floats
      let norm = gradient.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
      // Along the gradient itself, and along half of its elements.
      for share: Double in [1, 0.5] {
        let chosen: [Float] = gradient.map { value in
          Double.random(in: 0..<1, using: &random) < share ? value : 0
        }
        let length = chosen.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
        guard length > 0 else { continue }
        let direction = chosen.map { Float(Double($0) / length) }
        let found = try slope(
          trainer, trainingCase, parameter, direction, steepness: Float(norm))
        #expect(
          abs(found - length) < 2e-3 * max(norm, 0.1), "\(parameter.name): \(found), \(length)",
          sourceLocation: sourceLocation)
      }
    }
  }

  @Test("With drop path", arguments: ["vit300m", "ps-v2"])
  func dropPath(_ name: String) throws {
    let (trainingCase, _) = try TrainingCase.variant(name)
    var options = TrainingOptions()
    options.dropPathRate = 0.6
    let trainer = try trainingCase.trainer(options: options)
    try check(trainer, trainingCase, sourceLocation: #_sourceLocation)
  }

  @Test("Of adapters, with dropout and drop path", arguments: ["vit300m", "ps-v2"])
  func adapters(_ name: String) throws {
    let (trainingCase, _) = try TrainingCase.variant(name)
    var options = TrainingOptions()
    options.dropPathRate = 0.3
    options.visionLoRA = LoRA(rank: 3, alpha: 6, dropout: 0.2)
    options.languageLoRA = LoRA(rank: 2, alpha: 3, dropout: 0.1)
    let trainer = try trainingCase.trainer(options: options)
    try AdapterTests.fill(trainer)
    try check(trainer, trainingCase, sourceLocation: #_sourceLocation)
  }
}
