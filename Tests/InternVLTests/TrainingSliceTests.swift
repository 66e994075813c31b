import Checkpoint
import Kernels
import Tensors
import Testing
import Training

@testable import InternVL

/// What a slice does with micro-batches that pass it by, parts that are frozen, and wrong input.
@Suite struct TrainingSliceTests {
  private func freezing(
    vision: Bool = false, projector: Bool = false, language: Bool = false
  ) -> TrainingOptions {
    var options = TrainingOptions()
    (options.trainsVision, options.trainsProjector, options.trainsLanguage) = (
      !vision, !projector, !language
    )
    return options
  }

  @Test("A text-only micro-batch passes the vision slices by and gives them no gradient")
  func textOnly() throws {
    let (trainingCase, _) = try TrainingCase.variant("ps-v2")
    let trainer = try trainingCase.trainer()
    let text = trainingCase.microBatches[1]
    #expect(text.0.tiles == 0)
    for slice in trainer.vision as [any TrainingSlice] + [trainer.projector] {
      #expect(slice.inputShape(of: text.0) == nil)
      #expect(slice.outputShape(of: text.0) == nil)
    }
    #expect(trainer.language[0].inputShape(of: text.0) == nil)
    let result = try trainer.step(1, microBatches: [text])
    for sum in result.sumsOfSquares {
      #expect((sum.sum > 0) == sum.name.hasPrefix("language_model."), "\(sum.name)")
    }
  }

  @Test("Places of image rows give nothing to the embedding table")
  func placeholders() throws {
    let (trainingCase, _) = try TrainingCase.variant("ps-v2")
    let trainer = try trainingCase.trainer()
    _ = try trainer.step(1, microBatches: trainingCase.microBatches)
    let table = try #require(trainer.parameters.first { $0.name.hasSuffix("embed_tokens.weight") })
    // Nobody looks at a sample's last row.
    let used = Set(trainingCase.microBatches.flatMap { $0.0.ids.dropLast() })
    #expect(used.contains(90))
    for id in 0..<table.value.shape[0] {
      let isZero = table.gradient[id].floats.allSatisfy { $0 == 0 }
      #expect(isZero == (id == 90 || !used.contains(Int32(id))), "row \(id)")
    }
    // A negative id is a place as well.
    let marked = trainingCase.microBatches.map { microBatch, pixels in
      var marked = microBatch
      marked.ids = marked.ids.map { $0 == 90 ? -1 : $0 }
      return (marked, pixels: pixels)
    }
    let other = try trainingCase.trainer()
    _ = try other.step(1, microBatches: marked)
    for (a, b) in zip(trainer.parameters, other.parameters) {
      #expect(a.gradient.bits == b.gradient.bits)
    }
  }

  @Test(
    "Several samples in a micro-batch give the sum of what each gives alone, draws included",
    arguments: TrainingBitsTests.Kind.allCases)
  func packed(_ kind: TrainingBitsTests.Kind) throws {
    for name in ["ps-v2", "rope-dynamic"] {
      let (trainingCase, _) = try TrainingCase.variant(name)
      let apart = try trainingCase.trainer(options: kind.options())
      let together = try trainingCase.trainer(options: kind.options())
      for trainer in [apart, together] { try AdapterTests.fill(trainer) }
      let one = try apart.step(1, microBatches: trainingCase.microBatches)
      let all = try together.step(1, microBatches: [trainingCase.packed])
      let (a, b) = (one.loss(scale: 1), all.loss(scale: 1))
      #expect(abs(a - b) < 1e-6 * a)
      for (a, b) in zip(apart.parameters, together.parameters) {
        #expect(relativeDifference(b.gradient, a.gradient) < 1e-5, "\(a.name)")
      }
    }
  }

  @Test("A frozen front holds nothing for training and has no backward pass")
  func frozenFront() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    let trainer = try trainingCase.trainer(
      options: freezing(vision: true, projector: true), languageLayers: [0..<1, 1..<2])
    for slice in trainer.vision as [any TrainingSlice] + [trainer.projector] {
      #expect(slice.parameters.isEmpty)
      #expect(slice.trainingBytes == 0)
      #expect(!slice.hasBackward)
      #expect(!slice.needsInputGradient)
    }
    #expect(!trainer.language[0].needsInputGradient)
    #expect(trainer.language[1].needsInputGradient)
    let (microBatch, pixels) = trainingCase.microBatches[0]
    try trainer.forward(0, microBatch, pixels, step: 1)
    #expect(trainer.vision[0].savedBytes == 0)
    #expect(trainer.projector.savedBytes == 0)
    #expect(trainer.language[0].savedBytes > 0)
    try trainer.backward(0, microBatch)
    let whole = try trainingCase.trainer()
    _ = try whole.step(1, microBatches: [(microBatch, pixels)])
    let expected = Dictionary(
      uniqueKeysWithValues: whole.parameters.map { ($0.name, $0.gradient.bits) })
    #expect(trainer.parameters.allSatisfy { $0.name.hasPrefix("language_model.") })
    for parameter in trainer.parameters {
      #expect(parameter.gradient.bits == expected[parameter.name], "\(parameter.name)")
    }
  }

  @Test("A frozen language model passes gradients on, and text alone trains nothing")
  func frozenEnd() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    for (options, prefix) in [
      (freezing(vision: true, language: true), "mlp1."),
      (freezing(projector: true, language: true), "vision_model."),
    ] {
      let trainer = try trainingCase.trainer(options: options)
      #expect(trainer.language[0].parameters.isEmpty)
      #expect(trainer.language[0].hasBackward)
      #expect(trainer.parameters.allSatisfy { $0.name.hasPrefix(prefix) })
      let whole = try trainingCase.trainer()
      _ = try whole.step(1, microBatches: trainingCase.microBatches)
      let result = try trainer.step(1, microBatches: trainingCase.microBatches)
      #expect(result.losses.count == 3)
      let expected = Dictionary(
        uniqueKeysWithValues: whole.parameters.map { ($0.name, $0.gradient.bits) })
      for parameter in trainer.parameters {
        #expect(parameter.gradient.bits == expected[parameter.name], "\(parameter.name)")
      }
      try trainer.optimizer.clearGradients(trainer.parameters)
      let text = try trainer.step(1, microBatches: [trainingCase.microBatches[1]])
      #expect(text.losses.count == 1)
      #expect(text.gradientNorm == 0)
    }
  }

  @Test("More is kept the less is computed again")
  func memory() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    let (microBatch, pixels) = trainingCase.packed
    let saved = try [Recompute.full, .selective, .none].map { recompute in
      var options = TrainingOptions()
      options.recompute = recompute
      let trainer = try trainingCase.trainer(options: options)
      try trainer.forward(0, microBatch, pixels, step: 1)
      let bytes = trainer.savedBytes
      try trainer.forward(1, microBatch, pixels, step: 1)
      #expect(trainer.savedBytes == 2 * bytes)
      for slice in trainer.slices { slice.discard() }
      #expect(trainer.savedBytes == 0)
      // Of the embedding table's gradient no row is held before the first backward pass.
      let table = try #require(trainer.language[0].stage.embedding).value.byteCount
      #expect(
        trainer.trainingBytes + table
          == trainer.parameters.reduce(0) { $0 + 16 * $1.value.count })
      return bytes
    }
    #expect(saved == saved.sorted())
    #expect(Set(saved).count == 3)
  }

  @Test("Drop path leaves branches out as often as it says, and draws again what it drew")
  func dropPath() {
    let dropPath = DropPath(rate: 0.4, layerCount: 5, seed: 3)
    let tiles = (0..<2000).map { (sample: UInt64($0 / 2), tile: $0 % 2) }
    #expect(dropPath.factors(layer: 0, step: 1, tiles: tiles) == nil)
    for layer in 1...4 {
      let probability = 0.1 * Double(layer)
      let factors = dropPath.factors(layer: layer, step: 7, tiles: tiles)
      for branch in [factors?.attention ?? [], factors?.feedForward ?? []] {
        let kept = branch.filter { $0 != 0 }
        #expect(Set(kept).count == 1)
        #expect(abs(Double(kept[0]) - 1 / (1 - probability)) < 1e-6)
        let share = Double(kept.count) / 2000
        #expect(abs(share - (1 - probability)) < 0.05)
      }
      #expect(factors?.attention != factors?.feedForward)
      // Alone or in company, in any order.
      let few = dropPath.factors(layer: layer, step: 7, tiles: [tiles[9], tiles[4]])
      #expect(few?.attention == [9, 4].map { factors?.attention[$0] })
      let next = dropPath.factors(layer: layer, step: 8, tiles: tiles)
      #expect(next?.attention != factors?.attention)
      let seed = DropPath(rate: 0.4, layerCount: 5, seed: 4)
      #expect(
        seed.factors(layer: layer, step: 7, tiles: tiles)?.attention != factors?.attention)
    }
    #expect(
      DropPath(rate: 0.4, layerCount: 1, seed: 1).factors(layer: 0, step: 1, tiles: tiles) == nil)
  }

  @Test("The rate rises over the layers of the configuration, not those in use")
  func dropPathOfUnusedLayers() throws {
    // Three of six layers are used: the third drops with 0.4 of the last one's 1.0.
    let (trainingCase, _) = try TrainingCase.variant("v11")
    let configuration = try ModelConfiguration.load(folder: trainingCase.checkpoint)
    #expect(configuration.usedVisionLayers == 3)
    #expect(configuration.vision.layerCount == 6)
    var options = TrainingOptions()
    options.dropPathRate = 0.999
    let trainer = try trainingCase.trainer(options: options)
    let result = try trainer.step(1, microBatches: trainingCase.microBatches)
    #expect(result.losses.allSatisfy { $0.sum.isFinite })
    let key = DropPath(rate: 0.999, layerCount: 6, seed: options.seed)
    let kept = key.factors(layer: 2, step: 1, tiles: (0..<64).map { (UInt64($0), 0) })
    #expect(abs((kept?.attention.max() ?? 0) - 1 / (1 - 0.999 * 0.4)) < 1e-4)
  }

  @Test("Wrong use is refused")
  func refusals() throws {
    let (trainingCase, _) = try TrainingCase.variant("ps-v2")
    let trainer = try trainingCase.trainer(languageLayers: [0..<1, 1..<2])
    let (microBatch, pixels) = trainingCase.microBatches[0]
    for slice in trainer.slices {
      #expect(throws: InternVLError.unknownMicroBatch(index: 4)) {
        _ = try slice.backward(4, gradient: nil, into: nil)
      }
      #expect(throws: InternVLError.unknownMicroBatch(index: 4)) { _ = try slice.loss(4) }
    }
    #expect(throws: TensorError.self) {
      _ = try trainer.step(1, microBatches: [(microBatch, nil)])
    }
    var short = microBatch
    short.ids.removeLast()
    #expect(
      throws: InternVLError.tokensMissing(
        what: "ids", found: short.ids.count, rows: microBatch.rows)
    ) { _ = try trainer.step(1, microBatches: [(short, pixels)]) }
    short = microBatch
    short.labels.removeLast()
    #expect(
      throws: InternVLError.tokensMissing(
        what: "labels", found: short.labels.count, rows: microBatch.rows)
    ) { _ = try trainer.step(1, microBatches: [(short, pixels)]) }
    var plain = microBatch
    plain.ids = plain.ids.map { $0 == 90 ? 8 : $0 }
    #expect(throws: InternVLError.placeholderMismatch(placeholders: 0, imageRows: 4)) {
      _ = try trainer.step(1, microBatches: [(plain, pixels)])
    }
    #expect(trainer.savedBytes == 0)
    let (tied, _) = try TrainingCase.variant("tied")
    #expect(throws: InternVLError.tiedTensorSplit(layers: 0..<1)) {
      _ = try tied.trainer(languageLayers: [0..<1, 1..<2])
    }
    _ = try tied.trainer(
      options: freezing(language: true), languageLayers: [0..<1, 1..<2])
  }

  @Test("A context too short for a sample")
  func context() throws {
    let (trainingCase, _) = try TrainingCase.variant("ps-v2")
    let trainer = try trainingCase.trainer()
    let tokens = trainer.language[0].stage.contextLength + 1
    let long = MicroBatch(
      samples: [.init(key: 9, tokens: tokens, tiles: 0)],
      ids: [Int32](repeating: 8, count: tokens), labels: [Int32](repeating: 8, count: tokens))
    #expect(
      throws: InternVLError.beyondContext(sequence: 9, end: tokens, context: tokens - 1)
    ) { _ = try trainer.step(1, microBatches: [(long, nil)]) }
  }
}
