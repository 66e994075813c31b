import Checkpoint
import Tensors
import Testing

@testable import InternVL

/// Small rules of training.
@Suite struct TrainingRuleTests {
  @Test(
    "Hugging Face's decay follows the kind of the vision encoder's norm",
    arguments: [
      ("vision_model.encoder.layers.0.norm1.weight", true, false),
      ("vision_model.encoder.layers.0.norm2.weight", true, false),
      ("vision_model.encoder.layers.0.norm1.bias", false, false),
      ("vision_model.encoder.layers.0.attn.q_norm.weight", true, true),
      ("vision_model.encoder.layers.0.ls1", true, true),
      ("vision_model.embeddings.class_embedding", true, true),
      ("mlp1.0.weight", false, false),
      ("mlp1.1.weight", true, true),
      ("mlp1.1.bias", false, false),
      ("language_model.model.norm.weight", false, false),
      ("language_model.model.layers.3.input_layernorm.weight", false, false),
      ("language_model.model.embed_tokens.weight", true, true),
      (
        "language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
        true, true
      ),
    ])
  func decay(_ name: String, _ withRootMeanSquare: Bool, _ withLayerNorm: Bool) {
    #expect(
      WeightDecayRule.decaysInHF(name, visionNorm: .rms) == withRootMeanSquare)
    #expect(WeightDecayRule.decaysInHF(name, visionNorm: .layer) == withLayerNorm)
  }

  @Test("A pool gives memory again, and never holds more than was used at once")
  func pool() {
    let pool = TensorPool()
    var tensors = [pool.tensor([10, 30]), pool.tensor([10, 30])]
    let used = pool.usedBytes
    #expect(used >= 2 * 1200)
    #expect(used < 2 * 1600)
    tensors[0].withElements(of: Float.self) { $0.update(repeating: 1) }
    let address = tensors[0].baseAddress
    let view = tensors[0].rows(2..<3)
    tensors.removeFirst()
    // A view keeps it.
    #expect(pool.usedBytes == used)
    #expect(view.floats.allSatisfy { $0 == 1 })
    withExtendedLifetime(view) {}
    tensors = []
    _ = consume view
    #expect(pool.usedBytes == 0)
    let again = [pool.tensor([299]), pool.tensor([300])]
    #expect(again.contains { $0.baseAddress == address })
    #expect(pool.tensor([0]).count == 0)
    #expect(pool.tensor([1 << 20]).count == 1 << 20)
  }

  @Test("Draws differ by seed, step, sample, tile and place")
  func draws() {
    func stream(
      seed: UInt64 = 1, step: UInt64 = 2, sample: UInt64 = 3, tile: Int = 4, place: UInt64 = 5
    ) -> Float {
      Draws.stream(seed: seed, step: step, sample: sample, tile: tile, place: place).uniform(0)
    }
    let values = [
      stream(), stream(seed: 2), stream(step: 3), stream(sample: 2), stream(tile: 3),
      stream(place: 4), stream(step: 3, sample: 2), stream(sample: 4, tile: 3),
    ]
    #expect(Set(values).count == values.count)
    #expect(stream() == stream())
  }
}
