import Checkpoint
import Kernels
import Support
import Tensors
import Testing
import Training

@testable import InternVL

/// Patch classes and naming in slices that train: gradients, bits, and who has nothing to do.
@Suite struct ObjectiveSliceTests {
  static let groups = [
    TrainingObjectives.Group(name: "what", classWeights: [0.3, 1, 2.5]),
    TrainingObjectives.Group(name: "colour", classWeights: [1, 1, 1, 1]),
  ]

  static func options(
    answers: Bool = true, naming: Bool = true, patches: Bool = true, _ recompute: Recompute = .full
  ) -> TrainingOptions {
    var options = TrainingOptions()
    options.dropPathRate = 0.5
    options.recompute = recompute
    options.weightDecay = 0.05
    options.decay = .hf
    options.objectives = TrainingObjectives(
      answers: answers, naming: naming, groups: patches ? groups : [])
    return options
  }

  /// The micro-batches of a case, with random things on their pictures.
  static func microBatches(
    _ trainingCase: TrainingCase, _ configuration: ModelConfiguration, answers: Double = 1
  ) -> [(MicroBatch, pixels: Tensor?)] {
    var random = SeededRandom(4)
    let patches = configuration.gridSize * configuration.gridSize
    return (trainingCase.microBatches + [trainingCase.packed]).map { microBatch, pixels in
      var microBatch = microBatch
      microBatch.lossScale *= answers
      guard microBatch.tiles > 0 else { return (microBatch, pixels) }
      microBatch.patchTargets = groups.enumerated().map { index, group in
        PatchTargets(
          group: index,
          classes: (0..<microBatch.tiles * patches).map { _ in
            Int32.random(in: -1..<Int32(group.classWeights.count), using: &random)
          }, scale: 0.03)
      }
      var naming = NamingTargets()
      for row in 0..<microBatch.tiles * configuration.imageTokenCount where row % 3 != 1 {
        let token = Int32.random(in: 1..<80, using: &random)
        naming.append(row: row, [(token, 0.25), (token + 1, 0.5), (3, 0.25)])
      }
      naming.scale = 0.07
      microBatch.namingTargets = naming
      return (microBatch, pixels)
    }
  }

  // MARK: Gradients

  /// All parts of the loss, without gradients.
  private func loss(
    _ trainer: ModelTrainer, _ microBatches: [(MicroBatch, pixels: Tensor?)]
  ) throws -> Double {
    var sum = 0.0
    for (microBatch, pixels) in microBatches {
      try trainer.forward(0, microBatch, pixels, step: 3)
      for slice in trainer.slices where slice.takesPart {
        if let loss = try slice.loss(0) { sum += loss.sum * microBatch.lossScale }
      }
      for part in trainer.takeObjectives(0) {
        sum +=
          part.sum * (part.group == nil ? microBatch.namingTargets?.scale ?? 0 : 0.03)
      }
    }
    return sum
  }

  @Test(
    "Gradients are the slopes of the whole loss",
    arguments: ["vit300m", "ps-v2", "tied"], [(true, true, true), (false, true, true)])
  func slopes(_ name: String, _ parts: (Bool, Bool, Bool)) throws {
    let (trainingCase, _) = try TrainingCase.variant(name)
    let trainer = try trainingCase.trainer(
      options: Self.options(answers: parts.0, naming: parts.1, patches: parts.2))
    let microBatches = Self.microBatches(trainingCase, trainer.configuration)
    let result = try trainer.step(3, microBatches: microBatches)
    #expect(!result.objectives.isEmpty)
    var checked = 0
    for parameter in trainer.parameters {
      let gradient = parameter.gradient.floats
      let length = gradient.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
      guard length > 0 else { continue }
      let start = parameter.value.floats
      func at(_ distance: Double) throws -> Double {
        parameter.value.withElements(of: Float.self) { elements in
          for index in elements.indices {
            elements[index] = Float(
              Double(start[index]) + distance * Double(gradient[index]) / length)
          }
        }
        parameter.valueDidChange()
        return try loss(trainer, microBatches)
      }
      let step = 4e-3 / max(1, length / 4)
      let near = try at(step) - at(-step)
      let far = try at(2 * step) - at(-2 * step)
      _ = try at(0)
      let slope = (8 * near - far) / (12 * step)
      #expect(
        abs(slope - length) < 3e-3 * max(length, 0.1), "\(parameter.name): \(slope), \(length)")
      checked += 1
    }
    #expect(checked > 20)
    for name in ["what", "colour"] {
      for kind in ObjectivesFolder.Kind.allCases {
        #expect(
          trainer.parameters.contains { $0.name == ObjectivesFolder.parameter(kind, of: name) })
      }
    }
  }

  // MARK: Bits

  struct Trace: Equatable {
    var losses: [Double] = []
    var objectives: [ObjectiveLoss] = []
    var sums: [String: Double] = [:]
    var tensors: [String: [UInt32]] = [:]
  }

  private func trace(_ trainer: ModelTrainer, _ trainingCase: TrainingCase) throws -> Trace {
    var trace = Trace()
    let microBatches = Self.microBatches(trainingCase, trainer.configuration)
    for step in 1...2 {
      let result = try trainer.step(UInt64(step), microBatches: microBatches)
      trace.losses += result.losses.map(\.sum)
      trace.objectives += result.objectives
      for (name, sum) in result.sumsOfSquares { trace.sums["\(step) \(name)"] = sum }
      try trainer.update(learningRate: 1e-3, gradientScale: 0.7, updateNumber: step)
    }
    for parameter in trainer.parameters {
      trace.tensors[parameter.name] = parameter.value.bits
      trace.tensors["exp_avg_sq." + parameter.name] = parameter.secondMoment.bits
    }
    #expect(trainer.savedBytes == 0)
    return trace
  }

  @Test(
    "Every recomputation, number of threads and split",
    arguments: [
      (true, true, true), (false, false, true), (false, true, false), (true, true, false),
    ])
  func bits(_ parts: (answers: Bool, naming: Bool, patches: Bool)) throws {
    func options(_ recompute: Recompute) -> TrainingOptions {
      var options = Self.options(
        answers: parts.answers, naming: parts.naming, patches: parts.patches, recompute)
      if !parts.answers, !parts.naming {
        options.trainsProjector = false
        options.trainsLanguage = false
      }
      return options
    }
    for name in ["vit300m", "ps-v2", "tied"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      let expected = try trace(trainingCase.trainer(options: options(.none)), trainingCase)
      #expect(expected.losses.isEmpty == !parts.answers)
      #expect(expected.objectives.allSatisfy { $0.sum.isFinite && $0.sum > 0 })
      #expect(expected.objectives.contains { $0.group == nil } == parts.naming)
      #expect(expected.objectives.contains { $0.group == 1 } == parts.patches)
      for recompute in Recompute.allCases {
        let trainer = try trainingCase.trainer(threads: 3, options: options(recompute))
        let found = try trace(trainer, trainingCase)
        #expect(found.objectives == expected.objectives, "\(name) \(recompute)")
        #expect((found == expected) as Bool, "\(name) \(recompute)")
      }
      guard name != "tied" else { continue }
      let split = try trainingCase.trainer(
        options: options(.full), visionLayers: [0..<1, 1..<2], languageLayers: [0..<1, 1..<2])
      #expect((try trace(split, trainingCase) == expected) as Bool, "\(name) split")
    }
  }

  @Test("Weights' gradients left for later", arguments: [true, false])
  func deferred(_ answers: Bool) throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    let now = try trainingCase.trainer(options: Self.options(answers: answers))
    let later = try trainingCase.trainer(options: Self.options(answers: answers))
    let microBatches = Self.microBatches(trainingCase, now.configuration)
    _ = try now.step(5, microBatches: microBatches)
    for slice in later.slices { slice.defersWeightGradients = true }
    for (index, (microBatch, pixels)) in microBatches.enumerated() {
      try later.forward(index, microBatch, pixels, step: 5)
    }
    for (index, (microBatch, _)) in microBatches.enumerated() {
      var gradient: Tensor?
      for slice in later.slices.reversed() where slice.takesPart {
        let shape = slice.needsInputGradient ? slice.inputShape(of: microBatch) : nil
        let inputGradient = shape.map { Tensor(uninitialized: .float32, $0) }
        _ = try slice.backward(index, gradient: gradient, into: inputGradient)
        gradient = inputGradient
      }
    }
    for index in microBatches.indices {
      for slice in later.slices where slice.takesPart { try slice.accumulate(index) }
    }
    for (a, b) in zip(now.parameters, later.parameters) {
      #expect(a.gradient.hasSameBits(as: b.gradient), "\(a.name)")
    }
  }

  // MARK: Parts

  @Test("A run without the new parts has the bits that it had", arguments: ["vit300m", "tied"])
  func defaults(_ name: String) throws {
    let (trainingCase, _) = try TrainingCase.variant(name)
    let trainer = try trainingCase.trainer()
    #expect(trainer.slices.map { $0.takesPart } == [true, true, true])
    #expect(!trainer.parameters.contains { $0.name.hasPrefix("objectives") })
    let plain = try trainer.step(1, microBatches: trainingCase.microBatches)
    #expect(plain.objectives.isEmpty)
  }

  @Test("Without answers the gradients are those of answers that count nothing")
  func withoutAnswers() throws {
    for name in ["vit300m", "ps-v2", "tied"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      let without = try trainingCase.trainer(options: Self.options(answers: false))
      let weightless = try trainingCase.trainer(options: Self.options())
      let found = try without.step(
        2, microBatches: Self.microBatches(trainingCase, without.configuration))
      let expected = try weightless.step(
        2, microBatches: Self.microBatches(trainingCase, without.configuration, answers: 0))
      #expect(found.objectives == expected.objectives)
      #expect(found.losses.isEmpty)
      let all = Dictionary(
        uniqueKeysWithValues: weightless.parameters.map { ($0.name, $0.gradient.floats) })
      for parameter in without.parameters {
        // Zeros may differ in their sign.
        #expect((all[parameter.name] == parameter.gradient.floats) as Bool, "\(parameter.name)")
      }
      // Of the language model the table alone.
      let language = without.parameters.map(\.name).filter { $0.hasPrefix("language_model") }
      #expect(language == ["language_model.model.embed_tokens.weight"])
    }
  }

  @Test("With patch classes alone nothing behind the vision encoder takes part")
  func patchesAlone() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    var options = Self.options(answers: false, naming: false)
    options.trainsProjector = false
    options.trainsLanguage = false
    let trainer = try trainingCase.trainer(options: options, visionLayers: [0..<1, 1..<2])
    #expect(trainer.vision.map { $0.takesPart } == [true, true])
    #expect(!trainer.projector.takesPart && !trainer.language[0].takesPart)
    let microBatch = trainingCase.microBatches[0].0
    #expect(trainer.vision[0].outputShape(of: microBatch) != nil)
    #expect(trainer.vision[1].outputShape(of: microBatch) == nil)
    let result = try trainer.step(
      1, microBatches: Self.microBatches(trainingCase, trainer.configuration))
    #expect(result.losses.isEmpty)
    #expect(result.sumsOfSquares.filter { $0.sum > 0 }.count > 20)
  }

  @Test("With naming alone the first language slice is the last that works")
  func namingAlone() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    var options = Self.options(answers: false, patches: false)
    options.trainsLanguage = false
    let trainer = try trainingCase.trainer(options: options, languageLayers: [0..<1, 1..<2])
    #expect(trainer.projector.takesPart)
    #expect(trainer.language.map { $0.takesPart } == [true, false])
    #expect(trainer.language[0].outputShape(of: trainingCase.microBatches[0].0) == nil)
    let result = try trainer.step(
      1, microBatches: Self.microBatches(trainingCase, trainer.configuration))
    #expect(result.losses.isEmpty)
    #expect(result.objectives.map(\.group).allSatisfy { $0 == nil })
    let moved = Set(result.sumsOfSquares.filter { $0.sum > 0 }.map(\.name))
    for part in ["mlp1", "vision"] { #expect(moved.contains { $0.hasPrefix(part) }, "\(part)") }
  }
}
