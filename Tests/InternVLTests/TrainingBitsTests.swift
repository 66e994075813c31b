import Checkpoint
import Kernels
import Tensors
import Testing
import Training

@testable import InternVL

/// What must not change a bit of training: splits, recomputation, order, threads.
@Suite struct TrainingBitsTests {
  /// Losses, gradients and, after two updates, parameters and moments.
  struct Trace: Equatable {
    var losses: [Double] = []
    var sums: [Double] = []
    var tensors: [String: [UInt32]] = [:]

    mutating func add(_ result: ModelTrainer.StepResult, _ trainer: ModelTrainer) {
      losses += result.losses.map(\.sum)
      sums += result.sumsOfSquares.map(\.sum)
      add(trainer, "gradient", \.gradient)
    }

    mutating func add(
      _ trainer: ModelTrainer, _ what: String, _ path: KeyPath<Parameter, Tensor>
    ) {
      for parameter in trainer.parameters {
        tensors["\(losses.count) \(what) \(parameter.name)"] = parameter[keyPath: path].bits
      }
    }
  }

  enum Kind: CaseIterable {
    case everything, adapters

    func options(_ recompute: Recompute = .full) -> TrainingOptions {
      var options = TrainingOptions()
      options.dropPathRate = 0.5
      options.weightDecay = 0.05
      options.recompute = recompute
      if self == .adapters {
        options.visionLoRA = LoRA(rank: 3, alpha: 6, dropout: 0.2)
        options.languageLoRA = LoRA(rank: 2, alpha: 4, dropout: 0.1)
      }
      return options
    }
  }

  /// The batch's samples one by one, and all together once more.
  private func microBatches(_ trainingCase: TrainingCase) -> [(MicroBatch, pixels: Tensor?)] {
    trainingCase.microBatches + [trainingCase.packed]
  }

  private func trace(_ trainer: ModelTrainer, _ trainingCase: TrainingCase) throws -> Trace {
    var trace = Trace()
    for step in 1...2 {
      let result = try trainer.step(
        UInt64(step), microBatches: microBatches(trainingCase))
      trace.add(result, trainer)
      try trainer.update(learningRate: 1e-3, gradientScale: 0.7, updateNumber: step)
    }
    trace.add(trainer, "value", \.value)
    trace.add(trainer, "first moment", \.firstMoment)
    trace.add(trainer, "second moment", \.secondMoment)
    #expect(trainer.savedBytes == 0)
    return trace
  }

  @Test("Every recomputation, number of threads and split", arguments: Kind.allCases)
  func everything(_ kind: Kind) throws {
    for name in ["vit300m", "ps-v2"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      let expected = try trace(trainingCase.trainer(options: kind.options(.none)), trainingCase)
      #expect(expected.sums.allSatisfy { $0.isFinite })
      for recompute in Recompute.allCases {
        let trainer = try trainingCase.trainer(threads: 3, options: kind.options(recompute))
        #expect(try trace(trainer, trainingCase) == expected, "\(recompute)")
      }
      let split = try trainingCase.trainer(
        options: kind.options(), visionLayers: [0..<1, 1..<2], languageLayers: [0..<1, 1..<2])
      #expect(try trace(split, trainingCase) == expected, "split")
    }
  }

  @Test("Several slices of the golden cases", arguments: ModelCase.golden)
  func golden(_ modelCase: ModelCase) throws {
    let (trainingCase, _) = try TrainingCase.golden(modelCase)
    let options = Kind.everything.options()
    let whole = try trainingCase.trainer(options: options)
    let split = try trainingCase.trainer(
      threads: 2, options: options,
      visionLayers: LayerSplit.even(layers: whole.configuration.usedVisionLayers, stages: 2),
      languageLayers: LayerSplit.even(
        layers: whole.configuration.language.layerCount,
        stages: min(whole.configuration.language.layerCount, 3)))
    #expect(try trace(split, trainingCase) == trace(whole, trainingCase))
  }

  @Test("Products of weight gradients left for later", arguments: Kind.allCases)
  func deferred(_ kind: Kind) throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    for recompute in Recompute.allCases {
      let now = try trainingCase.trainer(options: kind.options(recompute))
      let later = try trainingCase.trainer(
        options: kind.options(recompute), languageLayers: [0..<1, 1..<2])
      let batches = microBatches(trainingCase)
      _ = try now.step(5, microBatches: batches)
      for slice in later.slices { slice.defersWeightGradients = true }
      for (index, (microBatch, pixels)) in batches.enumerated() {
        try later.forward(index, microBatch, pixels, step: 5)
      }
      // Backward of all, slice by slice; then what that left over.
      for (index, (microBatch, _)) in batches.enumerated() {
        try backwardOfInputs(later, index, microBatch)
      }
      #expect(later.savedBytes > 0)
      for index in batches.indices {
        for slice in later.slices { try slice.accumulate(index) }
      }
      #expect(later.savedBytes == 0)
      for (a, b) in zip(now.parameters, later.parameters) {
        #expect(a.gradient.bits == b.gradient.bits, "\(a.name)")
      }
    }
  }

  private func backwardOfInputs(
    _ trainer: ModelTrainer, _ index: Int, _ microBatch: MicroBatch
  ) throws {
    var gradient: Tensor?
    for slice in trainer.slices.reversed() {
      let shape = slice.needsInputGradient ? slice.inputShape(of: microBatch) : nil
      let input = shape.map { Tensor(uninitialized: .float32, $0) }
      _ = try slice.backward(index, gradient: gradient, into: input)
      // What was handed over is gone.
      gradient?.withElements(of: Float.self) { $0.update(repeating: .nan) }
      gradient = input
    }
  }

  @Test("Going on from a state, on another split", arguments: Kind.allCases)
  func resumed(_ kind: Kind) throws {
    let (trainingCase, _) = try TrainingCase.variant("ps-v2")
    let whole = try trainingCase.trainer(options: kind.options())
    let batches = microBatches(trainingCase)
    _ = try whole.step(1, microBatches: batches)
    try whole.update(learningRate: 1e-2, updateNumber: 1)
    let resumed = try trainingCase.trainer(
      options: kind.options(), state: MemoryState(whole.parameters),
      languageLayers: [0..<1, 1..<2])
    for trainer in [whole, resumed] {
      _ = try trainer.step(2, microBatches: batches)
      try trainer.update(learningRate: 1e-2, updateNumber: 2)
    }
    for (a, b) in zip(whole.parameters, resumed.parameters) {
      #expect(a.name == b.name)
      #expect(a.value.bits == b.value.bits, "\(a.name)")
      #expect(a.secondMoment.bits == b.secondMoment.bits, "\(a.name)")
    }
  }

  @Test("The forward pass of training is that of inference", arguments: [Recompute.full, .none])
  func inference(_ recompute: Recompute) throws {
    for name in ["vit300m", "ps-v2", "rope-dynamic", "pos-interp"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      var options = TrainingOptions()
      options.recompute = recompute
      let device = try CPUDevice(threads: 2)
      let trainer = try trainingCase.trainer(options: options, device: device)
      let (microBatch, pixels) = trainingCase.packed
      let losses = try trainer.losses(1, microBatches: [(microBatch, pixels)])
      let model = try InternVLModel(
        folder: trainingCase.checkpoint, device: device, cacheTokens: 1024)

      let rows = try model.encode(#require(pixels))
      let hidden = Tensor(uninitialized: .float32, [microBatch.rows, model.language[0].width])
      let places = try ImageRows.places(of: rows, in: microBatch.ids, placeholder: 90)
      try model.language[0].embed(ids: microBatch.ids, imageRows: places, into: hidden)
      let steps = microBatch.sequences.enumerated().map {
        SequenceRows(
          sequence: UInt64($0), position: 0, rows: $1, promptLength: $1.count)
      }
      try model.language[0].forward(hidden, steps: steps)
      try #require(model.language[0].norm).forward(hidden, into: hidden, on: device)
      // Row by row, as it trains: the model that serves holds it packed.
      let head = try CheckpointReader(folder: trainingCase.checkpoint).tensor(
        WeightNames.languageHead(model.configuration), neededFor: "the test")
      let loss = try device.crossEntropy(
        hidden: hidden, weight: head,
        labels: microBatch.labels, scale: 1, dHidden: nil, dWeight: nil)
      #expect(losses[0].sum == loss.sum)
      #expect(losses[0].rows == loss.rows)
    }
  }

  @Test("After an update, what serves computes with the new weights")
  func serving() throws {
    for name in ["pos-interp", "ps-v2"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      let trainer = try trainingCase.trainer()
      let batches = trainingCase.microBatches
      let pixels = try #require(batches[0].pixels)
      let before = try trainer.model.encode(pixels).bits
      _ = try trainer.step(1, microBatches: batches)
      #expect(try trainer.model.encode(pixels).bits == before)
      try trainer.update(learningRate: 1e-3, updateNumber: 1)
      let after = try trainer.model.encode(pixels).bits
      #expect(after != before)
      let other = try trainingCase.trainer(state: MemoryState(trainer.parameters))
      #expect(try other.model.encode(pixels).bits == after)
    }
  }

  @Test("Tiles together in one call, and one by one")
  func tiles() throws {
    for name in ["vit300m", "v11", "pos-interp"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      let model = try trainingCase.trainer(threads: 2).model
      let pixels = try #require(trainingCase.packed.pixels)
      let count = pixels.shape[0]
      let hidden = Tensor(zeros: .float32, [count] + model.vision[0].hiddenShape)
      try model.vision[0].embed(pixels, into: hidden)
      try model.vision[0].forward(hidden)
      let rows = Tensor(
        zeros: .float32, [count * model.projector.tokenCount, model.projector.width])
      try model.projector.forward(hidden, into: rows)
      for tile in 0..<count {
        #expect(try model.visionOutput(pixels[tile]).bits == hidden[tile].bits)
      }
      #expect(try model.encode(pixels).bits == rows.bits)
    }
  }
}

/// Parameters and moments, copied.
struct MemoryState: TrainingState {
  private var tensors: [TrainingStateKind: [String: Tensor]] = [:]

  init(_ parameters: [Parameter]) {
    for parameter in parameters {
      for (kind, tensor) in [
        (TrainingStateKind.value, parameter.value), (.firstMoment, parameter.firstMoment),
        (.secondMoment, parameter.secondMoment),
      ] {
        tensors[kind, default: [:]][parameter.name] = Tensor(tensor.floats, tensor.shape)
      }
    }
  }

  func tensor(_ kind: TrainingStateKind, of parameter: Weight) throws -> Tensor {
    try #require(tensors[kind]?[parameter.name])
  }
}
