import Testing

@testable import Checkpoint

@Suite struct WeightNamesTests {
  /// V1.2 itself: InternViT-6B-448px-V1-2 and Nous-Hermes-2-Yi-34B.
  private func v12() throws -> ModelConfiguration {
    try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 3200, layerCount: 45, headCount: 25, intermediateSize: 12800, imageSize: 448),
      language: LanguageConfiguration(
        hiddenSize: 7168, layerCount: 60, headCount: 56, keyValueHeadCount: 8,
        intermediateSize: 20480, vocabularySize: 64007))
  }

  private func count(_ weights: [Weight]) -> Int {
    weights.reduce(0) { $0 + $1.shape.reduce(1, *) }
  }

  @Test func `V1.2 has its published number of parameters`() throws {
    let configuration = try v12()
    let weights = WeightNames.all(configuration)
    #expect(count(weights) == 40_068_684_160)
    #expect(count(weights.filter { $0.name.hasPrefix("vision_model.") }) == 5_536_496_000)
    #expect(count(weights.filter { $0.name.hasPrefix("mlp1.") }) == 143_170_560)
    #expect(count(WeightNames.VisionLayer(configuration, 7).all) == 122_918_400)
    #expect(count(WeightNames.LanguageLayer(configuration, 59).all) == 557_856_768)
    #expect(Set(weights.map(\.name)).count == weights.count)
  }

  @Test func `shapes of V1.2 are those of the reference`() throws {
    let shapes = Dictionary(
      uniqueKeysWithValues: WeightNames.all(try v12()).map { ($0.name, $0.shape) })
    #expect(shapes["vision_model.embeddings.class_embedding"] == [1, 1, 3200])
    #expect(shapes["vision_model.embeddings.patch_embedding.weight"] == [3200, 3, 14, 14])
    #expect(shapes["vision_model.embeddings.position_embedding"] == [1, 1025, 3200])
    #expect(shapes["vision_model.encoder.layers.44.attn.qkv.weight"] == [9600, 3200])
    #expect(shapes["vision_model.encoder.layers.44.attn.q_norm.weight"] == [3200])
    #expect(shapes["vision_model.encoder.layers.0.mlp.fc2.weight"] == [3200, 12800])
    #expect(shapes["vision_model.encoder.layers.0.ls2"] == [3200])
    #expect(shapes["vision_model.encoder.layers.0.attn.qkv.bias"] == nil)
    #expect(shapes["mlp1.1.weight"] == [7168, 12800])
    #expect(shapes["mlp1.3.bias"] == [7168])
    #expect(shapes["language_model.model.layers.59.self_attn.k_proj.weight"] == [1024, 7168])
    #expect(shapes["language_model.model.layers.0.mlp.down_proj.weight"] == [7168, 20480])
    #expect(shapes["language_model.lm_head.weight"] == [64007, 7168])
  }

  @Test func `a tied head is the embedding table`() throws {
    let base = try v12()
    var language = base.language
    language.tiesEmbeddings = true
    let tied = try ModelConfiguration(vision: base.vision, language: language)
    #expect(WeightNames.languageHead(tied) == WeightNames.languageEmbedding(tied))
    #expect(!WeightNames.all(tied).contains { $0.name.contains("lm_head") })
  }
}
