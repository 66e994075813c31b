/// How rotary positions are stretched beyond the length a model was trained at.
public enum RopeScaling: Sendable, Equatable {
  case linear(factor: Float)
  case dynamic(factor: Float)
  case llama3(
    factor: Float, lowFrequencyFactor: Float, highFrequencyFactor: Float,
    originalMaxPositions: Int)
}

/// The shape of a Llama language model: `llm_config` in config.json.
///
/// Absent keys take the defaults of `LlamaConfig` in transformers, except sizes, which must be
/// there.
public struct LanguageConfiguration: Sendable, Equatable {
  public var hiddenSize: Int
  public var layerCount: Int
  public var headCount: Int
  public var keyValueHeadCount: Int
  public var intermediateSize: Int
  /// Rows of the embedding table.
  public var vocabularySize: Int
  public var ropeTheta: Float
  public var ropeScaling: RopeScaling?
  public var epsilon: Float
  /// Whether the output head is the embedding table; a checkpoint then has no head.
  public var tiesEmbeddings: Bool
  public var maxPositions: Int
  public var bosToken: Int?
  public var eosTokens: [Int]
  public var padToken: Int?

  /// Positions that the model can tell apart: linear scaling multiplies those it was trained at,
  /// dynamic scaling has no end.
  public var contextLength: Int {
    switch ropeScaling {
    case .linear(let factor): Int(Double(maxPositions) * Double(max(factor, 1)))
    // The base grows with every position.
    case .dynamic: .max
    case .llama3, nil: maxPositions
    }
  }

  public init(
    hiddenSize: Int, layerCount: Int, headCount: Int, keyValueHeadCount: Int,
    intermediateSize: Int, vocabularySize: Int, ropeTheta: Float = 5_000_000,
    ropeScaling: RopeScaling? = nil, epsilon: Float = 1e-5, tiesEmbeddings: Bool = false,
    maxPositions: Int = 4096, bosToken: Int? = 1, eosTokens: [Int] = [7], padToken: Int? = 0
  ) {
    self.hiddenSize = hiddenSize
    self.layerCount = layerCount
    self.headCount = headCount
    self.keyValueHeadCount = keyValueHeadCount
    self.intermediateSize = intermediateSize
    self.vocabularySize = vocabularySize
    self.ropeTheta = ropeTheta
    self.ropeScaling = ropeScaling
    self.epsilon = epsilon
    self.tiesEmbeddings = tiesEmbeddings
    self.maxPositions = maxPositions
    self.bosToken = bosToken
    self.eosTokens = eosTokens
    self.padToken = padToken
  }

  public var headSize: Int { hiddenSize / headCount }

  /// Columns of keys, or of values, in one row: all heads together.
  public var keyValueSize: Int { keyValueHeadCount * headSize }
}

extension LanguageConfiguration {
  init(_ object: ConfigurationObject) throws {
    try LanguageConfiguration.requireLlama(object)
    let headCount = try object.integer("num_attention_heads", in: 1...Limits.heads)
    let rope = try object.object("rope_parameters") ?? object.object("rope_scaling")
    let rotary = object.contains("rope_theta") ? object : rope ?? object
    self.init(
      hiddenSize: try object.integer("hidden_size", in: 2...Limits.width),
      layerCount: try object.integer("num_hidden_layers", in: 1...Limits.layers),
      headCount: headCount,
      keyValueHeadCount: try object.integer(
        "num_key_value_heads", in: 1...Limits.heads, default: headCount),
      intermediateSize: try object.integer("intermediate_size", in: 1...Limits.width),
      vocabularySize: try object.integer("vocab_size", in: 1...Limits.vocabularySize),
      ropeTheta: Float(try rotary.number("rope_theta", in: 1...1e12, default: 10_000)),
      ropeScaling: try rope.flatMap(LanguageConfiguration.scaling),
      epsilon: Float(try object.number("rms_norm_eps", in: 0...0.1, default: 1e-6)),
      tiesEmbeddings: try object.flag("tie_word_embeddings", default: false),
      maxPositions: try object.integer(
        "max_position_embeddings", in: 1...Limits.positions, default: 2048),
      bosToken: try object.tokens("bos_token_id")?.first,
      eosTokens: try object.tokens("eos_token_id") ?? [2],
      padToken: try LanguageConfiguration.padToken(object))
    guard hiddenSize.isMultiple(of: headCount) else {
      throw object.invalid(
        "num_attention_heads", "\(headCount)", "a divisor of hidden_size \(hiddenSize)")
    }
    guard headSize.isMultiple(of: 2) else {
      throw object.invalid(
        "num_attention_heads", "\(headCount)",
        "heads of an even size, for rotary positions turn pairs of channels")
    }
    guard headCount.isMultiple(of: keyValueHeadCount) else {
      throw object.invalid(
        "num_key_value_heads", "\(keyValueHeadCount)",
        "a divisor of num_attention_heads \(headCount)")
    }
    if object.contains("head_dim") {
      let size = try object.integer("head_dim", in: 1...Limits.width)
      guard size == headSize else {
        throw object.unsupported("head_dim", "\(size)", "hidden_size / num_attention_heads")
      }
    }
  }

  private static func requireLlama(_ object: ConfigurationObject) throws {
    if let name = try object.strings("architectures")?.first {
      guard name == "LlamaForCausalLM" else {
        throw object.unsupported("architectures", name, "LlamaForCausalLM")
      }
    } else {
      let type = try object.requiredString("model_type")
      guard type == "llama" else { throw object.unsupported("model_type", type, "llama") }
    }
    let activation = try object.string("hidden_act") ?? "silu"
    guard activation == "silu" else { throw object.unsupported("hidden_act", activation, "silu") }
    for key in ["attention_bias", "mlp_bias"] where try object.flag(key, default: false) {
      throw object.unsupported(key, "true", "layers without biases")
    }
  }

  private static func scaling(_ object: ConfigurationObject) throws -> RopeScaling? {
    let key = object.contains("rope_type") ? "rope_type" : "type"
    let kind = try object.requiredString(key)
    func factor(_ key: String) throws -> Float {
      let factors = 1e-3...1e6
      guard object.contains(key) else {
        throw CheckpointError.missingKey(file: object.file, key: object.fullName(key))
      }
      return Float(try object.number(key, in: factors))
    }
    switch kind {
    case "default": return nil
    case "linear": return .linear(factor: try factor("factor"))
    case "dynamic": return .dynamic(factor: try factor("factor"))
    case "llama3":
      let low = try factor("low_freq_factor")
      let high = try factor("high_freq_factor")
      guard low < high else {
        throw object.invalid("high_freq_factor", "\(high)", "more than low_freq_factor \(low)")
      }
      return .llama3(
        factor: try factor("factor"), lowFrequencyFactor: low, highFrequencyFactor: high,
        originalMaxPositions: try object.integer(
          "original_max_position_embeddings", in: 1...Limits.positions))
    default: throw object.unsupported(key, kind, "default, linear, dynamic and llama3")
    }
  }

  /// Early Llama files write -1 for "none".
  private static func padToken(_ object: ConfigurationObject) throws -> Int? {
    guard object.contains("pad_token_id") else { return nil }
    let token = try object.integer("pad_token_id", in: -1...Limits.vocabularySize)
    return token < 0 ? nil : token
  }

  var json: JSONValue {
    var members: [(String, JSONValue)] = [
      ("architectures", .array([.string("LlamaForCausalLM")])),
      ("attention_bias", .boolean(false)),
      (
        "eos_token_id",
        eosTokens.count == 1
          ? .integer(eosTokens[0]) : .array(eosTokens.map { .integer($0) })
      ),
      ("hidden_act", .string("silu")),
      ("hidden_size", .integer(hiddenSize)),
      ("intermediate_size", .integer(intermediateSize)),
      ("max_position_embeddings", .integer(maxPositions)),
      ("model_type", .string("llama")),
      ("num_attention_heads", .integer(headCount)),
      ("num_hidden_layers", .integer(layerCount)),
      ("num_key_value_heads", .integer(keyValueHeadCount)),
      ("rms_norm_eps", .number(shortest(epsilon))),
      ("rope_scaling", ropeScaling?.json ?? .null),
      ("rope_theta", .number(shortest(ropeTheta))),
      ("tie_word_embeddings", .boolean(tiesEmbeddings)),
      ("vocab_size", .integer(vocabularySize)),
    ]
    members.append(("bos_token_id", bosToken.map { .integer($0) } ?? .null))
    members.append(("pad_token_id", padToken.map { .integer($0) } ?? .null))
    return .object(members)
  }
}

extension RopeScaling {
  fileprivate var json: JSONValue {
    switch self {
    case .linear(let factor):
      .object([("type", .string("linear")), ("factor", .number(shortest(factor)))])
    case .dynamic(let factor):
      .object([("type", .string("dynamic")), ("factor", .number(shortest(factor)))])
    case .llama3(let factor, let low, let high, let positions):
      .object([
        ("rope_type", .string("llama3")), ("factor", .number(shortest(factor))),
        ("low_freq_factor", .number(shortest(low))),
        ("high_freq_factor", .number(shortest(high))),
        ("original_max_position_embeddings", .integer(positions)),
      ])
    }
  }
}
