import Checkpoint
import InternVL
import Kernels
import Tensors
import Testing
import Training

/// Training against what the reference implementation computed.
@Suite struct TrainingParityTests {
  @Test("Loss and gradients of the golden batch are the reference's", arguments: ModelCase.golden)
  func gradients(_ modelCase: ModelCase) throws {
    let (trainingCase, expected) = try TrainingCase.golden(modelCase)
    let trainer = try trainingCase.trainer()
    let result = try trainer.step(1, microBatches: trainingCase.microBatches)
    let rows = result.losses.reduce(0) { $0 + $1.rows }
    #expect(rows == expected.supervisedTokens)
    let loss = result.loss(scale: 1 / Double(rows))
    #expect(abs(loss - expected.loss) < 1e-5 * expected.loss)
    #expect(abs(result.gradientNorm - expected.gradNorm) < 1e-4 * expected.gradNorm)
    #expect(Set(result.normsByName.keys) == Set(expected.gradNorms.keys))
    for parameter in trainer.parameters {
      let norm = try #require(expected.gradNorms[parameter.name])
      let found = try #require(result.normsByName[parameter.name])
      #expect(abs(found - norm) <= 1e-4 * norm, "\(parameter.name): \(found), \(norm)")
      let first = try #require(expected.gradFirst[parameter.name])
      for (a, b) in zip(parameter.gradient.floats, first) {
        #expect(Double(abs(a - b)) <= 1e-5 * norm, "\(parameter.name)")
      }
    }
  }

  @Test(
    "One AdamW step gives the reference's parameters and loss",
    arguments: ModelCase.golden, ["plain", "hf"])
  func update(_ modelCase: ModelCase, _ name: String) throws {
    let (trainingCase, golden) = try TrainingCase.golden(modelCase)
    let expected = try #require(golden.steps[name])
    var options = TrainingOptions()
    options.weightDecay = expected.wd
    (options.beta1, options.beta2) = (expected.betas[0], expected.betas[1])
    options.epsilon = expected.eps
    options.decay = name == "hf" ? .hf : .all
    let trainer = try trainingCase.trainer(options: options)
    let before = Dictionary(
      uniqueKeysWithValues: trainer.parameters.map { ($0.name, $0.value.floats) })
    let result = try trainer.step(1, microBatches: trainingCase.microBatches)
    let scale = name == "hf" ? min(1, 1 / (result.gradientNorm + 1e-6)) : 1
    try trainer.update(learningRate: expected.lr, gradientScale: scale, updateNumber: 1)
    for parameter in trainer.parameters {
      let found = parameter.value.floats
      let first = try #require(expected.first[parameter.name])
      for (a, b) in zip(found, first) {
        #expect(abs(a - b) <= 2e-6, "\(parameter.name): \(a), \(b)")
      }
      let start = try #require(before[parameter.name])
      let moved = zip(found, start).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
      let delta = try #require(expected.deltaL2[parameter.name])
      #expect(abs(moved.squareRoot() - delta) < 2e-3 * delta, "\(parameter.name)")
      #expect(parameter.gradient.floats.allSatisfy { $0 == 0 })
    }
    let after = try trainer.losses(2, microBatches: trainingCase.microBatches)
    let loss = after.reduce(0) { $0 + $1.sum } / Double(golden.supervisedTokens)
    #expect(abs(loss - expected.lossAfter) < 1e-4)
  }

  @Test("Weight decay leaves out what Hugging Face's Trainer does", arguments: ModelCase.golden)
  func decay(_ modelCase: ModelCase) throws {
    let (trainingCase, expected) = try TrainingCase.golden(modelCase)
    let decayed = try trainingCase.trainer().parameters.filter(\.decaysInHF).map(\.name)
    #expect(Set(decayed) == Set(expected.decayedByHF))
  }

  @Test(
    "Gradients of every variant are PyTorch's, element by element",
    arguments: ["vit300m", "v11", "ps-v2", "pos-interp", "rope-dynamic", "tied"])
  func variants(_ name: String) throws {
    let (trainingCase, expected) = try TrainingCase.variant(name)
    let trainer = try trainingCase.trainer()
    let result = try trainer.step(1, microBatches: trainingCase.microBatches)
    let scale = trainingCase.microBatches[0].0.lossScale
    let loss = Double(try expected.tensor("loss").floats[0])
    #expect(abs(result.loss(scale: scale) - loss) < 1e-5 * loss)
    let names = trainer.parameters.map { "grad.\($0.name)" }
    #expect(Set(names) == Set(expected.names.filter { $0.hasPrefix("grad.") }))
    for parameter in trainer.parameters {
      let gradient = try expected.tensor("grad.\(parameter.name)")
      let difference = relativeDifference(parameter.gradient, gradient)
      #expect(difference < 3e-5, "\(parameter.name)")
    }
  }
}
