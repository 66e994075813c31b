import Checkpoint
import Kernels
import Support
import Tensors
import Testing
import Training

@testable import InternVL

/// Low-rank adapters.
@Suite struct AdapterTests {
  private static func options(dropout: Double = 0) -> TrainingOptions {
    var options = TrainingOptions()
    options.trainsProjector = false
    options.visionLoRA = LoRA(rank: 3, alpha: 6, dropout: dropout)
    options.languageLoRA = LoRA(rank: 4, alpha: 2, dropout: dropout)
    return options
  }

  /// Gives adapters that are zero at the start an effect.
  static func fill(_ trainer: ModelTrainer) throws {
    var random = SeededRandom(8)
    for parameter in trainer.parameters where parameter.name.contains(".lora_B.") {
      parameter.value.withElements(of: Float.self) { elements in
        for index in elements.indices { elements[index] = .random(in: -0.3...0.3, using: &random) }
      }
    }
  }

  @Test("At the start they change nothing")
  func start() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    let plain = try trainingCase.trainer().losses(1, microBatches: trainingCase.microBatches)
    let found = try trainingCase.trainer(options: Self.options(dropout: 0.3))
      .losses(1, microBatches: trainingCase.microBatches)
    #expect(found.map(\.sum) == plain.map(\.sum))
  }

  @Test("They stand beside the recipe's products, under PEFT's names, and are all that is trained")
  func names() throws {
    let (trainingCase, _) = try TrainingCase.variant("ps-v2")
    let trainer = try trainingCase.trainer(options: Self.options())
    let language =
      ["q_proj", "k_proj", "v_proj", "o_proj"].map { "self_attn.\($0)" }
      + ["gate_proj", "up_proj", "down_proj"].map { "mlp.\($0)" }
    let expected = (0..<2).flatMap { layer in
      ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"].flatMap { name in
        ["A", "B"].map {
          "vision_model.base_model.model.encoder.layers.\(layer).\(name).lora_\($0).default.weight"
        }
      }
        + language.flatMap { name in
          ["A", "B"].map {
            "language_model.base_model.model.model.layers.\(layer).\(name).lora_\($0).default.weight"
          }
        }
    }
    #expect(Set(trainer.parameters.map(\.name)) == Set(expected))
    #expect(trainer.parameters.count == expected.count)
    #expect(Set(trainer.tensors.filter(\.isAdapter).map(\.name)) == Set(expected))
    let held = Set(trainer.tensors.filter { !$0.isAdapter }.map(\.name))
    #expect(held == Set(WeightNames.all(trainer.configuration).map(\.name)))
    #expect(trainer.tensors.count { $0.hasAdapter } * 2 == expected.count)
    let a = try #require(
      trainer.parameters.first { $0.name.hasSuffix("qkv.lora_A.default.weight") })
    #expect(a.value.shape == [3, 16])
    // Kaiming's uniform for √5: within 1/√K, and of that spread.
    let bound: Float = 0.25
    #expect(a.value.floats.allSatisfy { abs($0) <= bound })
    let square = a.value.floats.reduce(0) { $0 + $1 * $1 } / 48
    #expect(abs(square - bound * bound / 3) < 0.25 * bound * bound / 3)
  }

  @Test(
    "The gradient of B at the start is that of the product's weight, times A",
    arguments: ModelCase.golden)
  func gradientAtStart(_ modelCase: ModelCase) throws {
    // The golden gradients of whole weights are the reference's; one case is bfloat16.
    let (trainingCase, _) = try TrainingCase.golden(modelCase)
    let whole = try trainingCase.trainer()
    _ = try whole.step(1, microBatches: trainingCase.microBatches)
    let trainer = try trainingCase.trainer(options: Self.options())
    _ = try trainer.step(1, microBatches: trainingCase.microBatches)
    let gradients = Dictionary(
      uniqueKeysWithValues: whole.parameters.map { ($0.name, $0.gradient) })
    var checked = 0
    for held in trainer.tensors {
      guard let adapter = held.adapter, let dB = adapter.b.gradient, let dA = adapter.a.gradient,
        let dWeight = gradients[held.name]?.floats
      else { continue }
      #expect(dA.floats.allSatisfy { $0 == 0 })
      let (rank, width) = (dA.shape[0], dA.shape[1])
      let a = adapter.a.value.floats
      var expected: [Float] = []
      for row in 0..<dB.shape[0] {
        for index in 0..<rank {
          var sum: Float = 0
          for column in 0..<width {
            sum += dWeight[row * width + column] * a[index * width + column]
          }
          expected.append(adapter.scale * sum)
        }
      }
      #expect(relativeDifference(dB.floats, expected) < 1e-4, "\(held.name)")
      checked += 1
    }
    #expect(checked == trainer.parameters.count / 2)
    #expect(checked > 0)
  }

  @Test("Merged into their products they compute the same")
  func merged() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    let trainer = try trainingCase.trainer(options: Self.options())
    try Self.fill(trainer)
    let adapted = try trainer.losses(1, microBatches: trainingCase.microBatches)
    // Trained in full, from the merged weights.
    let merged = Dictionary(
      uniqueKeysWithValues: trainer.tensors.map { held in
        (held.name, held.merged().map { $0.elements(0..<held.tensor.count) } ?? held.tensor)
      })
    let whole = try trainingCase.trainer()
    let before = try whole.losses(1, microBatches: trainingCase.microBatches)
    for parameter in whole.parameters {
      parameter.value.copyElements(from: try #require(merged[parameter.name]))
      parameter.valueDidChange()
    }
    let found = try whole.losses(1, microBatches: trainingCase.microBatches)
    for ((a, b), c) in zip(zip(adapted, found), before) {
      #expect(abs(a.sum - b.sum) < 1e-5 * b.sum)
      #expect(abs(a.sum - c.sum) > 1e-2)
    }
  }

  @Test(
    "A merged weight has the same bits in pieces of any size",
    arguments: [(1, 5), (3, 512), (4, 513), (6, 1030)], [ScalarType.float32, .bfloat16])
  func mergedPieces(_ size: (rank: Int, width: Int), type: ScalarType) throws {
    var random = SeededRandom(3)
    let base = random.tensor([7, size.width])
    let weight = Tensor(uninitialized: type, base.shape)
    if type == .float32 {
      weight.copyElements(from: base)
    } else {
      weight.withElements(of: UInt16.self) { halves in
        for (index, value) in base.floats.enumerated() {
          halves[index] = UInt16(value.bitPattern >> 16)
        }
      }
    }
    let merged = MergedWeight(
      weight: weight, a: random.tensor([size.rank, size.width]), b: random.tensor([7, size.rank]),
      scale: 0.75)
    var expected = weight.floats
    let (a, b) = (merged.a.floats, merged.b.floats)
    for place in expected.indices {
      let (row, column) = place.quotientAndRemainder(dividingBy: size.width)
      for index in 0..<size.rank {
        expected[place] +=
          merged.scale * b[row * size.rank + index] * a[index * size.width + column]
      }
    }
    for piece in [1, 2, size.width - 1, size.width, 1000, expected.count] {
      let found = stride(from: 0, to: expected.count, by: piece).flatMap { start in
        merged.elements(start..<min(start + piece, expected.count)).floats
      }
      #expect(found == expected)
    }
    #expect(merged.elements(3..<3).count == 0)
    #expect(merged.shape == weight.shape)
  }

  @Test("What serves during training drops nothing")
  func serving() throws {
    let (trainingCase, _) = try TrainingCase.variant("vit300m")
    let dropping = try trainingCase.trainer(options: Self.options(dropout: 0.5))
    let keeping = try trainingCase.trainer(options: Self.options())
    let pixels = try #require(trainingCase.microBatches[0].pixels)
    for trainer in [dropping, keeping] { try Self.fill(trainer) }
    #expect(
      try dropping.model.encode(pixels).bits == keeping.model.encode(pixels).bits)
    let batches = trainingCase.microBatches
    #expect(
      try dropping.losses(1, microBatches: batches).map(\.sum)
        != keeping.losses(1, microBatches: batches).map(\.sum))
  }
}
