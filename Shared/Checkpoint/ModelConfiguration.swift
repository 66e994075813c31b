/// What config.json says of an InternVL chat model.
///
/// Sources: the reference's configuration_internvl_chat.py, configuration_intern_vit.py, and
/// `LlamaConfig` of transformers. Keys that do not concern running or training are ignored.
public struct ModelConfiguration: Sendable, Equatable {
  /// In which order merged patches become tokens (`ps_version`).
  public enum PixelShuffle: String, Sendable {
    /// Column by column of the picture: V1.2 and before.
    case v1
    /// Row by row.
    case v2
  }

  public let vision: VisionConfiguration
  public let language: LanguageConfiguration

  /// Which of the encoder's hidden states the projector takes, as an index in Python's way
  /// into layers + 1 states; state 0 is the embedding.
  public let selectLayer: Int
  /// Layers that have to run for that state.
  public let usedVisionLayers: Int

  /// The factor by which pixel shuffle shrinks a side of the grid.
  public let downsampleRatio: Float
  /// The same as a whole number: patches on a side of one image token.
  public let mergedPatches: Int
  public let pixelShuffle: PixelShuffle
  /// Pixels on a side of a tile.
  public let imageSize: Int
  /// Image tokens of a tile.
  public let imageTokenCount: Int

  public let templateName: String
  public let systemMessage: String?
  public let dynamicImageSize: Bool
  public let useThumbnail: Bool
  public let minTiles: Int
  public let maxTiles: Int
  public let padToSquare: Bool
  /// `torch_dtype`, such as `bfloat16`; what the weights are stored in, the tensors say.
  public let torchType: String?

  /// How the weights are quantised; nil of a model in the release format.
  public let quantisation: QuantisationRecipe?

  /// SHA-256 of config.json in hexadecimal.
  public let digest: String

  /// Patches on a side of a tile.
  public var gridSize: Int { imageSize / vision.patchSize }

  /// Columns of a projector input row: the channels of the merged patches.
  public var projectorInputSize: Int { mergedPatches * mergedPatches * vision.hiddenSize }

  /// Reads `config.json` in `folder`.
  ///
  /// - Throws: ``CheckpointError`` when folder or file is missing, the file is not such a
  ///   configuration, or describes a model that Chiasm does not run.
  public static func load(folder: String) throws -> ModelConfiguration {
    try requireFolder(folder)
    return try load(file: "\(folder)/config.json")
  }

  /// Reads a configuration that lies apart from a model.
  ///
  /// - Throws: ``CheckpointError``, naming the file and the key.
  public static func load(file: String) throws -> ModelConfiguration {
    try ModelConfiguration(readFile(file, limit: Limits.configurationBytes), file: file)
  }

  /// A configuration of a new model, held to the same checks as one that is read.
  ///
  /// - Parameter imageSize: pixels on a side of a tile; that of the position table when nil.
  /// - Throws: ``CheckpointError``, naming the keys of config.json.
  public init(
    vision: VisionConfiguration, language: LanguageConfiguration, selectLayer: Int = -1,
    downsampleRatio: Float = 0.5, pixelShuffle: PixelShuffle = .v1, imageSize: Int? = nil,
    templateName: String = "Hermes-2", systemMessage: String? = nil,
    dynamicImageSize: Bool = false, useThumbnail: Bool = false, minTiles: Int = 1,
    maxTiles: Int = 6, padToSquare: Bool = false, torchType: String? = "bfloat16"
  ) throws {
    func optional(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }
    let json = JSONValue.object([
      ("architectures", .array([.string("InternVLChatModel")])),
      ("downsample_ratio", .number(shortest(downsampleRatio))),
      ("dynamic_image_size", .boolean(dynamicImageSize)),
      ("force_image_size", .integer(imageSize ?? vision.imageSize)),
      ("llm_config", language.json),
      ("max_dynamic_patch", .integer(maxTiles)),
      ("min_dynamic_patch", .integer(minTiles)),
      ("model_type", .string("internvl_chat")),
      ("pad2square", .boolean(padToSquare)),
      ("ps_version", .string(pixelShuffle.rawValue)),
      ("select_layer", .integer(selectLayer)),
      ("system_message", optional(systemMessage)),
      ("template", .string(templateName)),
      ("torch_dtype", optional(torchType)),
      ("use_thumbnail", .boolean(useThumbnail)),
      ("vision_config", vision.json),
    ])
    try self.init(Array(json.text.utf8), file: "config.json")
  }

  /// - Parameter file: what errors name.
  init(_ bytes: [UInt8], file: String) throws {
    let object = try ConfigurationObject(bytes, file: file)
    try ModelConfiguration.requireInternVL(object)
    quantisation = try QuantisationRecipe.read(object)
    let vision = try VisionConfiguration(object.requiredObject("vision_config"))
    self.vision = vision
    language = try LanguageConfiguration(object.requiredObject("llm_config"))

    let layers = vision.layerCount
    selectLayer = try object.integer("select_layer", in: -layers - 1...layers, default: -1)
    usedVisionLayers = selectLayer < 0 ? layers + 1 + selectLayer : selectLayer

    imageSize = try object.integer(
      "force_image_size", in: vision.patchSize...Limits.imageSize, default: vision.imageSize)
    downsampleRatio = Float(try object.number("downsample_ratio", in: 0.01...1, default: 0.5))
    mergedPatches = Int((1 / downsampleRatio).rounded())
    guard abs(downsampleRatio * Float(mergedPatches) - 1) < 1e-5 else {
      throw object.unsupported("downsample_ratio", "\(downsampleRatio)", "1/2, 1/3, 1/4 and so on")
    }
    let grid = imageSize / vision.patchSize
    guard grid.isMultiple(of: mergedPatches) else {
      throw object.invalid(
        "downsample_ratio", "\(downsampleRatio)",
        "one that divides the grid of \(grid)×\(grid) patches")
    }
    imageTokenCount = (grid / mergedPatches) * (grid / mergedPatches)
    let shuffle = try object.string("ps_version") ?? PixelShuffle.v1.rawValue
    guard let pixelShuffle = PixelShuffle(rawValue: shuffle) else {
      throw object.unsupported("ps_version", shuffle, "v1 and v2")
    }
    self.pixelShuffle = pixelShuffle

    templateName = try object.requiredString("template")
    systemMessage = try object.string("system_message")
    dynamicImageSize = try object.flag("dynamic_image_size", default: false)
    useThumbnail = try object.flag("use_thumbnail", default: false)
    minTiles = try object.integer("min_dynamic_patch", in: 1...Limits.tiles, default: 1)
    maxTiles = try object.integer(
      "max_dynamic_patch", in: minTiles...Limits.tiles, default: max(6, minTiles))
    padToSquare = try object.flag("pad2square", default: false)
    torchType = try object.string("torch_dtype")
    encoded = bytes
    digest = Digest.sha256(bytes)
  }

  /// Refuses a quantised model.
  ///
  /// - Parameter purpose: what cannot be done with it: "cannot be trained".
  /// - Throws: ``CheckpointError/quantisedModel(folder:purpose:)``.
  public func requireFloats(folder: String, purpose: String) throws {
    guard quantisation == nil else {
      throw CheckpointError.quantisedModel(folder: folder, purpose: purpose)
    }
  }

  private static func requireInternVL(_ object: ConfigurationObject) throws {
    let type = try object.requiredString("model_type")
    guard type == "internvl_chat" else {
      throw object.unsupported("model_type", type, "internvl_chat")
    }
    if let name = try object.strings("architectures")?.first, name != "InternVLChatModel" {
      throw object.unsupported("architectures", name, "InternVLChatModel")
    }
    for key in ["use_backbone_lora", "use_llm_lora"] where object.contains(key) {
      let rank = try object.integer(key, in: 0...Limits.width)
      guard rank == 0 else {
        throw object.unsupported(key, "\(rank)", "checkpoints with their LoRA merged in")
      }
    }
  }

  /// The bytes of config.json, to be written beside weights of the same shape.
  public let encoded: [UInt8]
}
