/// The names and shapes of the tensors in a checkpoint of the reference's `InternVLChatModel`.
///
/// Linear weights are [out, in]. Sources: modeling_intern_vit.py, modeling_internvl_chat.py and
/// transformers' modeling_llama.py. Nothing else in Chiasm knows these names.
///
/// C vision hidden size, F intermediate size, P patch size, D language hidden size,
/// K key and value columns, V vocabulary size.
public enum WeightNames {
  /// Every weight of a model, in the order of its computation. A tied head is not among them.
  public static func all(_ configuration: ModelConfiguration) -> [Weight] {
    var weights = VisionEmbeddings(configuration).all
    for layer in 0..<configuration.vision.layerCount {
      weights += VisionLayer(configuration, layer).all
    }
    weights += Projector(configuration).all
    weights.append(languageEmbedding(configuration))
    for layer in 0..<configuration.language.layerCount {
      weights += LanguageLayer(configuration, layer).all
    }
    weights.append(languageNorm(configuration))
    if !configuration.language.tiesEmbeddings { weights.append(languageHead(configuration)) }
    return weights
  }

  public struct VisionEmbeddings: Sendable {
    /// [1, 1, C]
    public let classEmbedding: Weight
    /// [C, 3, P, P]
    public let patchWeight: Weight
    /// [C]
    public let patchBias: Weight
    /// [1, 1 + grid², C], the class token's row first.
    public let positionEmbedding: Weight

    public init(_ configuration: ModelConfiguration) {
      let vision = configuration.vision
      let width = vision.hiddenSize
      let prefix = "vision_model.embeddings"
      classEmbedding = Weight("\(prefix).class_embedding", [1, 1, width])
      patchWeight = Weight(
        "\(prefix).patch_embedding.weight",
        [width, vision.channelCount, vision.patchSize, vision.patchSize])
      patchBias = Weight("\(prefix).patch_embedding.bias", [width])
      positionEmbedding = Weight(
        "\(prefix).position_embedding", [1, vision.positionCount, width])
    }

    public var all: [Weight] { [classEmbedding, patchWeight, patchBias, positionEmbedding] }
  }

  public struct VisionLayer: Sendable {
    /// [C]; biases only with ``VisionConfiguration/Normalization/layer``.
    public let norm1Weight: Weight
    public let norm1Bias: Weight?
    /// [3C, C]: rows of queries, keys, values.
    public let qkvWeight: Weight
    /// [3C], if ``VisionConfiguration/qkvBias``.
    public let qkvBias: Weight?
    /// [C] over all heads together, if ``VisionConfiguration/qkNormalization``.
    public let queryNormWeight: Weight?
    public let keyNormWeight: Weight?
    /// [C, C]
    public let projectionWeight: Weight
    /// [C]
    public let projectionBias: Weight
    /// [C]
    public let layerScale1: Weight
    public let norm2Weight: Weight
    public let norm2Bias: Weight?
    /// [F, C]
    public let fc1Weight: Weight
    /// [F]
    public let fc1Bias: Weight
    /// [C, F]
    public let fc2Weight: Weight
    /// [C]
    public let fc2Bias: Weight
    /// [C]
    public let layerScale2: Weight

    public init(_ configuration: ModelConfiguration, _ layer: Int) {
      let vision = configuration.vision
      let width = vision.hiddenSize
      let inner = vision.intermediateSize
      let prefix = "vision_model.encoder.layers.\(layer)"
      let normHasBias = vision.norm == .layer
      norm1Weight = Weight("\(prefix).norm1.weight", [width])
      norm1Bias = normHasBias ? Weight("\(prefix).norm1.bias", [width]) : nil
      qkvWeight = Weight("\(prefix).attn.qkv.weight", [3 * width, width])
      qkvBias = vision.qkvBias ? Weight("\(prefix).attn.qkv.bias", [3 * width]) : nil
      queryNormWeight =
        vision.qkNormalization ? Weight("\(prefix).attn.q_norm.weight", [width]) : nil
      keyNormWeight =
        vision.qkNormalization ? Weight("\(prefix).attn.k_norm.weight", [width]) : nil
      projectionWeight = Weight("\(prefix).attn.proj.weight", [width, width])
      projectionBias = Weight("\(prefix).attn.proj.bias", [width])
      layerScale1 = Weight("\(prefix).ls1", [width])
      norm2Weight = Weight("\(prefix).norm2.weight", [width])
      norm2Bias = normHasBias ? Weight("\(prefix).norm2.bias", [width]) : nil
      fc1Weight = Weight("\(prefix).mlp.fc1.weight", [inner, width])
      fc1Bias = Weight("\(prefix).mlp.fc1.bias", [inner])
      fc2Weight = Weight("\(prefix).mlp.fc2.weight", [width, inner])
      fc2Bias = Weight("\(prefix).mlp.fc2.bias", [width])
      layerScale2 = Weight("\(prefix).ls2", [width])
    }

    public var all: [Weight] {
      [
        norm1Weight, norm1Bias, qkvWeight, qkvBias, queryNormWeight, keyNormWeight,
        projectionWeight, projectionBias, layerScale1, norm2Weight, norm2Bias, fc1Weight, fc1Bias,
        fc2Weight, fc2Bias, layerScale2,
      ].compactMap { $0 }
    }
  }

  public struct Projector: Sendable {
    /// [4C] for 2×2 merged patches.
    public let normWeight: Weight
    public let normBias: Weight
    /// [D, 4C]
    public let fc1Weight: Weight
    /// [D]
    public let fc1Bias: Weight
    /// [D, D]
    public let fc2Weight: Weight
    /// [D]
    public let fc2Bias: Weight

    public init(_ configuration: ModelConfiguration) {
      let input = configuration.projectorInputSize
      let output = configuration.language.hiddenSize
      normWeight = Weight("mlp1.0.weight", [input])
      normBias = Weight("mlp1.0.bias", [input])
      fc1Weight = Weight("mlp1.1.weight", [output, input])
      fc1Bias = Weight("mlp1.1.bias", [output])
      fc2Weight = Weight("mlp1.3.weight", [output, output])
      fc2Bias = Weight("mlp1.3.bias", [output])
    }

    public var all: [Weight] {
      [normWeight, normBias, fc1Weight, fc1Bias, fc2Weight, fc2Bias]
    }
  }

  public struct LanguageLayer: Sendable {
    /// [D]
    public let inputNormWeight: Weight
    /// [D, D]
    public let queryWeight: Weight
    /// [K, D]
    public let keyWeight: Weight
    /// [K, D]
    public let valueWeight: Weight
    /// [D, D]
    public let outputWeight: Weight
    /// [D]
    public let postAttentionNormWeight: Weight
    /// [F, D]
    public let gateWeight: Weight
    /// [F, D]
    public let upWeight: Weight
    /// [D, F]
    public let downWeight: Weight

    public init(_ configuration: ModelConfiguration, _ layer: Int) {
      let language = configuration.language
      let width = language.hiddenSize
      let inner = language.intermediateSize
      let prefix = "language_model.model.layers.\(layer)"
      inputNormWeight = Weight("\(prefix).input_layernorm.weight", [width])
      queryWeight = Weight("\(prefix).self_attn.q_proj.weight", [width, width])
      keyWeight = Weight("\(prefix).self_attn.k_proj.weight", [language.keyValueSize, width])
      valueWeight = Weight("\(prefix).self_attn.v_proj.weight", [language.keyValueSize, width])
      outputWeight = Weight("\(prefix).self_attn.o_proj.weight", [width, width])
      postAttentionNormWeight = Weight("\(prefix).post_attention_layernorm.weight", [width])
      gateWeight = Weight("\(prefix).mlp.gate_proj.weight", [inner, width])
      upWeight = Weight("\(prefix).mlp.up_proj.weight", [inner, width])
      downWeight = Weight("\(prefix).mlp.down_proj.weight", [width, inner])
    }

    public var all: [Weight] {
      [
        inputNormWeight, queryWeight, keyWeight, valueWeight, outputWeight,
        postAttentionNormWeight, gateWeight, upWeight, downWeight,
      ]
    }
  }

  static let languageEmbeddingName = "language_model.model.embed_tokens.weight"
  static let languageHeadName = "language_model.lm_head.weight"

  /// [V, D]
  public static func languageEmbedding(_ configuration: ModelConfiguration) -> Weight {
    Weight(
      languageEmbeddingName,
      [configuration.language.vocabularySize, configuration.language.hiddenSize])
  }

  /// [D]
  public static func languageNorm(_ configuration: ModelConfiguration) -> Weight {
    Weight("language_model.model.norm.weight", [configuration.language.hiddenSize])
  }

  /// [V, D]; the embedding table where the configuration ties them.
  public static func languageHead(_ configuration: ModelConfiguration) -> Weight {
    if configuration.language.tiesEmbeddings { return languageEmbedding(configuration) }
    return Weight(
      languageHeadName,
      [configuration.language.vocabularySize, configuration.language.hiddenSize])
  }
}
