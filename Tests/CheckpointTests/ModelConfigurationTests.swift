import Support
import Testing

@testable import Checkpoint

@Suite struct ModelConfigurationTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// The members of a small valid config.json, as JSON text by key.
  private static let vision = [
    "model_type": "\"intern_vit_6b\"", "hidden_size": "96", "num_hidden_layers": "48",
    "num_attention_heads": "3", "intermediate_size": "384", "patch_size": "14",
    "image_size": "448",
  ]
  private static let language = [
    "architectures": "[\"LlamaForCausalLM\"]", "hidden_size": "64", "num_hidden_layers": "3",
    "num_attention_heads": "4", "num_key_value_heads": "2", "intermediate_size": "176",
    "vocab_size": "512",
  ]
  private static let top = [
    "model_type": "\"internvl_chat\"", "architectures": "[\"InternVLChatModel\"]",
    "template": "\"Hermes-2\"",
  ]

  /// A configuration text with members changed; nil takes one away.
  private static func text(
    top: [String: String?] = [:], vision: [String: String?] = [:], language: [String: String?] = [:]
  ) -> String {
    func object(_ base: [String: String], _ changes: [String: String?]) -> String {
      var members = base
      for (key, value) in changes { members[key] = value }
      return "{" + members.map { "\"\($0.key)\":\($0.value)" }.joined(separator: ",") + "}"
    }
    var members = Self.top
    members["vision_config"] = object(Self.vision, vision)
    members["llm_config"] = object(Self.language, language)
    return object(members, top)
  }

  private func parse(
    top: [String: String?] = [:], vision: [String: String?] = [:], language: [String: String?] = [:]
  ) throws -> ModelConfiguration {
    let text = Self.text(top: top, vision: vision, language: language)
    return try ModelConfiguration(Array(text.utf8), file: "config.json")
  }

  @Test func `absent keys take the reference's defaults`() throws {
    let configuration = try parse()
    let vision = configuration.vision
    #expect(vision.hiddenSize == 96 && vision.layerCount == 48 && vision.headSize == 32)
    #expect(!vision.qkvBias && vision.qkNormalization && vision.norm == .rms)
    #expect(vision.epsilon == 1e-6 && vision.initializerFactor == 0.1)
    #expect(vision.initializerRange == 0.02 && vision.dropPathRate == 0)
    #expect(vision.channelCount == 3 && vision.positionCount == 1025)
    let language = configuration.language
    #expect(language.headSize == 16 && language.keyValueSize == 32)
    #expect(language.ropeTheta == 10_000 && language.ropeScaling == nil)
    #expect(language.epsilon == 1e-6 && !language.tiesEmbeddings && language.maxPositions == 2048)
    #expect(language.bosToken == nil && language.eosTokens == [2] && language.padToken == nil)
    #expect(configuration.selectLayer == -1 && configuration.usedVisionLayers == 48)
    #expect(configuration.pixelShuffle == .v1 && configuration.imageSize == 448)
    #expect(configuration.imageTokenCount == 256 && configuration.mergedPatches == 2)
    #expect(configuration.projectorInputSize == 384)
    #expect(configuration.systemMessage == nil && configuration.templateName == "Hermes-2")
    #expect(!configuration.dynamicImageSize && !configuration.useThumbnail)
    #expect(configuration.minTiles == 1 && configuration.maxTiles == 6)
    #expect(!configuration.padToSquare && configuration.torchType == nil)
  }

  @Test func `keys that are there are read`() throws {
    let configuration = try parse(
      top: [
        "system_message": "\"Answer the questions.\"", "ps_version": "\"v2\"",
        "force_image_size": "56", "dynamic_image_size": "true", "use_thumbnail": "true",
        "min_dynamic_patch": "2", "max_dynamic_patch": "12", "pad2square": "true",
        "torch_dtype": "\"bfloat16\"", "downsample_ratio": "0.25", "use_llm_lora": "0",
      ],
      vision: [
        "qkv_bias": "true", "qk_normalization": "false", "norm_type": "\"layer_norm\"",
        "layer_norm_eps": "1e-05", "drop_path_rate": "0.1", "initializer_factor": "1.0",
        "initializer_range": "1e-10", "num_channels": "3",
      ],
      language: [
        "num_key_value_heads": nil, "rope_theta": "5000000.0", "rms_norm_eps": "1e-05",
        "tie_word_embeddings": "true", "max_position_embeddings": "4096", "bos_token_id": "1",
        "eos_token_id": "[2, 7]", "pad_token_id": "0", "head_dim": "16",
        "attn_implementation": "\"eager\"",
      ])
    #expect(configuration.systemMessage == "Answer the questions.")
    #expect(configuration.pixelShuffle == .v2 && configuration.imageSize == 56)
    #expect(configuration.imageTokenCount == 1 && configuration.mergedPatches == 4)
    #expect(configuration.dynamicImageSize && configuration.useThumbnail)
    #expect(configuration.minTiles == 2 && configuration.maxTiles == 12)
    #expect(configuration.padToSquare && configuration.torchType == "bfloat16")
    #expect(configuration.vision.qkvBias && !configuration.vision.qkNormalization)
    #expect(configuration.vision.norm == .layer && configuration.vision.epsilon == 1e-5)
    #expect(configuration.vision.dropPathRate == 0.1)
    #expect(configuration.vision.initializerFactor == 1)
    #expect(configuration.vision.initializerRange == 1e-10)
    let language = configuration.language
    #expect(language.keyValueHeadCount == 4 && language.ropeTheta == 5_000_000)
    #expect(language.epsilon == 1e-5 && language.tiesEmbeddings && language.maxPositions == 4096)
    #expect(language.bosToken == 1 && language.eosTokens == [2, 7] && language.padToken == 0)
  }

  @Test(arguments: [
    (-1, 48), (-4, 45), (-49, 0), (0, 0), (1, 1), (45, 45), (48, 48),
  ])
  func `select_layer says how many layers run`(selected: Int, used: Int) throws {
    #expect(try parse(top: ["select_layer": "\(selected)"]).usedVisionLayers == used)
  }

  @Test(arguments: [
    (448, 14, "0.5", 256), (224, 14, "0.5", 64), (84, 14, "0.5", 9), (450, 14, "0.5", 256),
    (448, 14, "1", 1024), (448, 14, "1.0", 1024), (336, 14, "0.25", 36), (28, 14, "0.5", 1),
    (42, 14, "0.3333333333333333", 1),
  ])
  func `image tokens follow from sizes`(image: Int, patch: Int, ratio: String, count: Int) throws {
    let configuration = try parse(
      top: ["downsample_ratio": ratio, "force_image_size": "\(image)"],
      vision: ["patch_size": "\(patch)"])
    #expect(configuration.imageTokenCount == count)
  }

  @Test(
    arguments: [
      ("null", nil),
      (#"{"type":"linear","factor":2.0}"#, .linear(factor: 2)),
      (#"{"type":"dynamic","factor":3}"#, .dynamic(factor: 3)),
      (#"{"rope_type":"default"}"#, nil),
      (
        #"{"rope_type":"llama3","type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}"#,
        .llama3(
          factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalMaxPositions: 8192)
      ),
    ] as [(String, RopeScaling?)])
  func `rotary scalings are read`(text: String, scaling: RopeScaling?) throws {
    #expect(try parse(language: ["rope_scaling": text]).language.ropeScaling == scaling)
  }

  @Test func `rotary parameters may lie in an object of their own`() throws {
    let text = #"{"rope_type":"linear","factor":4.0,"rope_theta":123.0}"#
    let language = try parse(language: ["rope_parameters": text]).language
    #expect(language.ropeTheta == 123 && language.ropeScaling == .linear(factor: 4))
  }

  @Test func `null counts as absent, and -1 as no padding`() throws {
    let language = try parse(
      language: ["bos_token_id": "null", "eos_token_id": "null", "pad_token_id": "-1"]).language
    #expect(language.bosToken == nil && language.eosTokens == [2] && language.padToken == nil)
  }

  struct Refusal: CustomTestStringConvertible, Sendable {
    var top: [String: String?] = [:]
    var vision: [String: String?] = [:]
    var language: [String: String?] = [:]
    var error: CheckpointError

    var testDescription: String { error.description }

    static func unsupported(_ key: String, _ found: String, _ supported: String)
      -> CheckpointError
    { .unsupported(file: "config.json", key: key, found: found, supported: supported) }

    static func missing(_ key: String) -> CheckpointError {
      .missingKey(file: "config.json", key: key)
    }

    static func wrong(_ key: String, _ expected: String) -> CheckpointError {
      .wrongType(file: "config.json", key: key, expected: expected)
    }

    static func invalid(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
      .invalidValue(file: "config.json", key: key, found: found, expected: expected)
    }
  }

  static let refusals: [Refusal] = [
    // Another model.
    .init(
      top: ["model_type": "\"llava\""],
      error: Refusal.unsupported("model_type", "llava", "internvl_chat")),
    .init(
      top: ["architectures": "[\"LlavaModel\"]"],
      error: Refusal.unsupported("architectures", "LlavaModel", "InternVLChatModel")),
    .init(
      vision: ["model_type": "\"clip_vision_model\""],
      error: Refusal.unsupported("vision_config.model_type", "clip_vision_model", "intern_vit_6b")),
    .init(
      vision: ["architectures": "[\"CLIPVisionModel\"]"],
      error: Refusal.unsupported(
        "vision_config.architectures", "CLIPVisionModel", "InternVisionModel")),
    .init(
      language: ["architectures": "[\"InternLM2ForCausalLM\"]"],
      error: Refusal.unsupported(
        "llm_config.architectures", "InternLM2ForCausalLM", "LlamaForCausalLM")),
    .init(
      language: ["architectures": nil, "model_type": "\"qwen2\""],
      error: Refusal.unsupported("llm_config.model_type", "qwen2", "llama")),
    .init(
      top: ["use_llm_lora": "128"],
      error: Refusal.unsupported("use_llm_lora", "128", "checkpoints with their LoRA merged in")),
    .init(
      vision: ["norm_type": "\"batch_norm\""],
      error: Refusal.unsupported(
        "vision_config.norm_type", "batch_norm", "rms_norm and layer_norm")),
    .init(
      vision: ["hidden_act": "\"quick_gelu\""],
      error: Refusal.unsupported("vision_config.hidden_act", "quick_gelu", "gelu")),
    .init(
      language: ["hidden_act": "\"gelu\""],
      error: Refusal.unsupported("llm_config.hidden_act", "gelu", "silu")),
    .init(
      language: ["attention_bias": "true"],
      error: Refusal.unsupported("llm_config.attention_bias", "true", "layers without biases")),
    .init(
      language: ["head_dim": "32"],
      error: Refusal.unsupported("llm_config.head_dim", "32", "hidden_size / num_attention_heads")),
    .init(
      language: ["rope_scaling": #"{"rope_type":"yarn","factor":2}"#],
      error: Refusal.unsupported(
        "llm_config.rope_scaling.rope_type", "yarn", "default, linear, dynamic and llama3")),
    .init(
      top: ["ps_version": "\"v3\""], error: Refusal.unsupported("ps_version", "v3", "v1 and v2")),
    .init(
      top: ["downsample_ratio": "0.4"],
      error: Refusal.unsupported("downsample_ratio", "0.4", "1/2, 1/3, 1/4 and so on")),
    // Missing keys.
    .init(top: ["model_type": nil], error: Refusal.missing("model_type")),
    .init(top: ["template": nil], error: Refusal.missing("template")),
    .init(top: ["template": "null"], error: Refusal.missing("template")),
    .init(top: ["vision_config": nil], error: Refusal.missing("vision_config")),
    .init(top: ["llm_config": nil], error: Refusal.missing("llm_config")),
    .init(vision: ["hidden_size": nil], error: Refusal.missing("vision_config.hidden_size")),
    .init(
      vision: ["num_hidden_layers": nil],
      error: Refusal.missing("vision_config.num_hidden_layers")),
    .init(vision: ["patch_size": nil], error: Refusal.missing("vision_config.patch_size")),
    .init(vision: ["image_size": nil], error: Refusal.missing("vision_config.image_size")),
    .init(language: ["vocab_size": nil], error: Refusal.missing("llm_config.vocab_size")),
    .init(
      language: ["intermediate_size": nil],
      error: Refusal.missing("llm_config.intermediate_size")),
    .init(language: ["architectures": nil], error: Refusal.missing("llm_config.model_type")),
    .init(
      language: ["rope_scaling": #"{"type":"linear"}"#],
      error: Refusal.missing("llm_config.rope_scaling.factor")),
    .init(
      language: ["rope_scaling": #"{"factor":2}"#],
      error: Refusal.missing("llm_config.rope_scaling.type")),
    // Wrong types.
    .init(top: ["model_type": "1"], error: Refusal.wrong("model_type", "a string")),
    .init(
      top: ["architectures": "\"InternVLChatModel\""],
      error: Refusal.wrong("architectures", "a list of strings")),
    .init(top: ["vision_config": "[]"], error: Refusal.wrong("vision_config", "an object")),
    .init(
      top: ["downsample_ratio": "\"0.5\""], error: Refusal.wrong("downsample_ratio", "a number")),
    .init(top: ["use_thumbnail": "0"], error: Refusal.wrong("use_thumbnail", "true or false")),
    .init(top: ["select_layer": "-1.0"], error: Refusal.wrong("select_layer", "an integer")),
    .init(
      vision: ["hidden_size": "\"96\""],
      error: Refusal.wrong("vision_config.hidden_size", "an integer")),
    .init(
      vision: ["hidden_size": "99999999999999999999"],
      error: Refusal.wrong("vision_config.hidden_size", "an integer")),
    .init(
      language: ["eos_token_id": "\"2\""],
      error: Refusal.wrong("llm_config.eos_token_id", "a token id or a list of them")),
    .init(
      language: ["eos_token_id": "[2, null]"],
      error: Refusal.wrong("llm_config.eos_token_id", "a token id or a list of them")),
    // Absurd values.
    .init(
      vision: ["hidden_size": "-96"],
      error: Refusal.invalid("vision_config.hidden_size", "-96", "1 to 131072")),
    .init(
      vision: ["num_hidden_layers": "0"],
      error: Refusal.invalid("vision_config.num_hidden_layers", "0", "1 to 1024")),
    .init(
      vision: ["num_attention_heads": "5"],
      error: Refusal.invalid(
        "vision_config.num_attention_heads", "5", "a divisor of hidden_size 96")),
    .init(
      vision: ["num_attention_heads": "0"],
      error: Refusal.invalid("vision_config.num_attention_heads", "0", "1 to 1024")),
    .init(
      vision: ["patch_size": "0"],
      error: Refusal.invalid("vision_config.patch_size", "0", "1 to 256")),
    .init(
      vision: ["image_size": "13"],
      error: Refusal.invalid("vision_config.image_size", "13", "14 to 8192")),
    .init(
      vision: ["num_channels": "4"],
      error: Refusal.invalid("vision_config.num_channels", "4", "3 to 3")),
    .init(
      vision: ["layer_norm_eps": "NaN"],
      error: Refusal.invalid("vision_config.layer_norm_eps", "nan", "0.0 to 0.1")),
    .init(
      vision: ["drop_path_rate": "1"],
      error: Refusal.invalid("vision_config.drop_path_rate", "1.0", "0.0 to 0.99")),
    .init(
      language: ["num_attention_heads": "7"],
      error: Refusal.invalid("llm_config.num_attention_heads", "7", "a divisor of hidden_size 64")),
    .init(
      language: ["num_attention_heads": "64", "num_key_value_heads": "64"],
      error: Refusal.invalid(
        "llm_config.num_attention_heads", "64",
        "heads of an even size, for rotary positions turn pairs of channels")),
    .init(
      language: ["num_key_value_heads": "3"],
      error: Refusal.invalid(
        "llm_config.num_key_value_heads", "3", "a divisor of num_attention_heads 4")),
    .init(
      language: ["num_key_value_heads": "8"],
      error: Refusal.invalid(
        "llm_config.num_key_value_heads", "8", "a divisor of num_attention_heads 4")),
    .init(
      language: ["vocab_size": "1000000000000"],
      error: Refusal.invalid("llm_config.vocab_size", "1000000000000", "1 to 4194304")),
    .init(
      language: ["rope_theta": "0"],
      error: Refusal.invalid("llm_config.rope_theta", "0.0", "1.0 to 1000000000000.0")),
    .init(
      language: ["rope_theta": "Infinity"],
      error: Refusal.invalid("llm_config.rope_theta", "inf", "1.0 to 1000000000000.0")),
    .init(
      language: [
        "rope_scaling":
          #"{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,"original_max_position_embeddings":64}"#
      ],
      error: Refusal.invalid(
        "llm_config.rope_scaling.high_freq_factor", "4.0", "more than low_freq_factor 4.0")),
    .init(
      language: ["eos_token_id": "-1"],
      error: Refusal.invalid("llm_config.eos_token_id", "-1", "ids from 0 to 4194304")),
    .init(
      top: ["select_layer": "49"], error: Refusal.invalid("select_layer", "49", "-49 to 48")),
    .init(
      top: ["select_layer": "-50"], error: Refusal.invalid("select_layer", "-50", "-49 to 48")),
    .init(
      top: ["force_image_size": "0"],
      error: Refusal.invalid("force_image_size", "0", "14 to 8192")),
    .init(
      top: ["force_image_size": "42"],
      error: Refusal.invalid(
        "downsample_ratio", "0.5", "one that divides the grid of 3×3 patches")),
    .init(
      top: ["downsample_ratio": "0"],
      error: Refusal.invalid("downsample_ratio", "0.0", "0.01 to 1.0")),
    .init(
      top: ["min_dynamic_patch": "4", "max_dynamic_patch": "2"],
      error: Refusal.invalid("max_dynamic_patch", "2", "4 to 256")),
  ]

  @Test(arguments: refusals)
  func `what cannot be run is refused by name`(refusal: Refusal) {
    #expect(throws: refusal.error) {
      try parse(top: refusal.top, vision: refusal.vision, language: refusal.language)
    }
  }

  @Test func `the golden configuration is read from its folder`() throws {
    let path = Fixtures.path("golden/v12-tiny/checkpoint")
    let configuration = try ModelConfiguration.load(folder: path)
    #expect(configuration.vision.layerCount == 3 && configuration.vision.hiddenSize == 96)
    #expect(configuration.imageSize == 56 && configuration.imageTokenCount == 4)
    #expect(configuration.language.vocabularySize == 512)
    #expect(configuration.language.ropeTheta == 5_000_000)
    #expect(configuration.language.eosTokens == [7] && configuration.language.bosToken == 1)
    #expect(configuration.torchType == "float32")
    #expect(
      configuration.digest == "2670df01217d42040f729d4ad67f1fbc39f352cd382e20df8dc28c0a8be655bd")
  }

  @Test func `a written configuration is the one that was made`() throws {
    for scaling in [
      nil, .linear(factor: 2), .dynamic(factor: 1.5),
      .llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalMaxPositions: 64),
    ] as [RopeScaling?] {
      let vision = VisionConfiguration(
        hiddenSize: 48, layerCount: 6, headCount: 3, intermediateSize: 96, imageSize: 56,
        qkvBias: true, qkNormalization: false, norm: .layer, epsilon: 1e-5, dropPathRate: 0.1,
        initializerFactor: 1, initializerRange: 1e-10)
      let language = LanguageConfiguration(
        hiddenSize: 64, layerCount: 2, headCount: 4, keyValueHeadCount: 2, intermediateSize: 100,
        vocabularySize: 300, ropeTheta: 10_000, ropeScaling: scaling, tiesEmbeddings: true,
        bosToken: nil, eosTokens: [2, 6], padToken: nil)
      let made = try ModelConfiguration(
        vision: vision, language: language, selectLayer: -4, pixelShuffle: .v2, imageSize: 84,
        templateName: "internvl_zh", systemMessage: "Be \"kind\".\n", dynamicImageSize: true,
        useThumbnail: true, minTiles: 2, maxTiles: 4, padToSquare: true, torchType: "float32")
      #expect(made.vision == vision && made.language == language)
      #expect(made.usedVisionLayers == 3 && made.imageSize == 84 && made.pixelShuffle == .v2)
      #expect(made.systemMessage == "Be \"kind\".\n" && made.maxTiles == 4 && made.padToSquare)
      try folder.write("config.json", made.encoded)
      #expect(try ModelConfiguration.load(folder: folder.path) == made)
    }
  }

  @Test func `a new configuration is held to the same checks`() {
    #expect(throws: CheckpointError.self) {
      try ModelConfiguration(
        vision: VisionConfiguration(
          hiddenSize: 48, layerCount: 1, headCount: 0, intermediateSize: 96, imageSize: 56),
        language: LanguageConfiguration(
          hiddenSize: 64, layerCount: 2, headCount: 4, keyValueHeadCount: 2, intermediateSize: 100,
          vocabularySize: 300))
    }
  }

  @Test func `missing folders and files are named`() throws {
    #expect(throws: CheckpointError.missingFolder("/nonexistent")) {
      try ModelConfiguration.load(folder: "/nonexistent")
    }
    #expect(throws: CheckpointError.missingFile("\(folder.path)/config.json")) {
      try ModelConfiguration.load(folder: folder.path)
    }
    let file = try folder.write("f", "{}")
    #expect(throws: CheckpointError.notAFolder(file)) { try ModelConfiguration.load(folder: file) }
    let inner = try folder.makeFolder("config.json")
    #expect(throws: CheckpointError.notAFile(inner)) {
      try ModelConfiguration.load(folder: folder.path)
    }
  }

  @Test func `a file that is too large is not read`() throws {
    let path = try folder.write("config.json", [UInt8](repeating: 0x20, count: (4 << 20) + 1))
    #expect(
      throws: CheckpointError.tooLarge(file: path, byteCount: (4 << 20) + 1, limit: 4 << 20)
    ) { try ModelConfiguration.load(folder: folder.path) }
  }

  @Test(arguments: ["[]", "1", "\"a\"", "null"])
  func `a file that is no object is refused`(text: String) throws {
    let path = try folder.write("config.json", text)
    #expect(
      throws: CheckpointError.wrongType(file: path, key: "the whole", expected: "an object")
    ) { try ModelConfiguration.load(folder: folder.path) }
  }
}
