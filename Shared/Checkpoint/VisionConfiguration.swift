/// The shape of an InternViT vision encoder: `vision_config` in config.json.
///
/// Absent keys take the defaults of the reference's configuration_intern_vit.py, except sizes,
/// which must be there.
public struct VisionConfiguration: Sendable, Equatable {
  public enum Normalization: String, Sendable {
    case rms = "rms_norm"
    case layer = "layer_norm"
  }

  public var hiddenSize: Int
  public var layerCount: Int
  public var headCount: Int
  public var intermediateSize: Int
  /// Pixels on a side of one patch.
  public var patchSize: Int
  /// Pixels on a side of the picture that the position table was made for.
  public var imageSize: Int
  public var channelCount: Int
  public var qkvBias: Bool
  /// Whether queries and keys are normalized over the whole hidden vector.
  public var qkNormalization: Bool
  public var norm: Normalization
  public var epsilon: Float
  /// The rate of the last layer; the first has 0, those between lie on a line.
  public var dropPathRate: Float
  /// What layer scales start from.
  public var initializerFactor: Float
  /// The standard deviation that linear weights start with.
  public var initializerRange: Float

  public init(
    hiddenSize: Int, layerCount: Int, headCount: Int, intermediateSize: Int, patchSize: Int = 14,
    imageSize: Int, channelCount: Int = 3, qkvBias: Bool = false, qkNormalization: Bool = true,
    norm: Normalization = .rms, epsilon: Float = 1e-6, dropPathRate: Float = 0,
    initializerFactor: Float = 0.1, initializerRange: Float = 0.02
  ) {
    self.hiddenSize = hiddenSize
    self.layerCount = layerCount
    self.headCount = headCount
    self.intermediateSize = intermediateSize
    self.patchSize = patchSize
    self.imageSize = imageSize
    self.channelCount = channelCount
    self.qkvBias = qkvBias
    self.qkNormalization = qkNormalization
    self.norm = norm
    self.epsilon = epsilon
    self.dropPathRate = dropPathRate
    self.initializerFactor = initializerFactor
    self.initializerRange = initializerRange
  }

  public var headSize: Int { hiddenSize / headCount }

  /// Patches on a side of the position table.
  public var gridSize: Int { imageSize / patchSize }

  /// Rows of the position table: the class token's and one for each patch.
  public var positionCount: Int { gridSize * gridSize + 1 }
}

extension VisionConfiguration {
  init(_ object: ConfigurationObject) throws {
    let name = try object.strings("architectures")?.first
    if let name, name != "InternVisionModel" {
      throw object.unsupported("architectures", name, "InternVisionModel")
    }
    if let type = try object.string("model_type"), type != "intern_vit_6b" {
      throw object.unsupported("model_type", type, "intern_vit_6b")
    }
    let activation = try object.string("hidden_act") ?? "gelu"
    guard activation == "gelu" else { throw object.unsupported("hidden_act", activation, "gelu") }
    let normName = try object.string("norm_type") ?? Normalization.rms.rawValue
    guard let norm = Normalization(rawValue: normName) else {
      throw object.unsupported("norm_type", normName, "rms_norm and layer_norm")
    }
    let patchSize = try object.integer("patch_size", in: 1...256)
    self.init(
      hiddenSize: try object.integer("hidden_size", in: 1...Limits.width),
      layerCount: try object.integer("num_hidden_layers", in: 1...Limits.layers),
      headCount: try object.integer("num_attention_heads", in: 1...Limits.heads),
      intermediateSize: try object.integer("intermediate_size", in: 1...Limits.width),
      patchSize: patchSize,
      imageSize: try object.integer("image_size", in: patchSize...Limits.imageSize),
      channelCount: try object.integer("num_channels", in: 3...3, default: 3),
      qkvBias: try object.flag("qkv_bias", default: false),
      qkNormalization: try object.flag("qk_normalization", default: true),
      norm: norm,
      epsilon: Float(try object.number("layer_norm_eps", in: 0...0.1, default: 1e-6)),
      dropPathRate: Float(try object.number("drop_path_rate", in: 0...0.99, default: 0)),
      initializerFactor: Float(
        try object.number("initializer_factor", in: -1e3...1e3, default: 0.1)),
      initializerRange: Float(try object.number("initializer_range", in: 0...1e3, default: 0.02)))
    guard hiddenSize.isMultiple(of: headCount) else {
      throw object.invalid(
        "num_attention_heads", "\(headCount)", "a divisor of hidden_size \(hiddenSize)")
    }
  }

  var json: JSONValue {
    .object([
      ("architectures", .array([.string("InternVisionModel")])),
      ("drop_path_rate", .number(shortest(dropPathRate))),
      ("hidden_act", .string("gelu")),
      ("hidden_size", .integer(hiddenSize)),
      ("image_size", .integer(imageSize)),
      ("initializer_factor", .number(shortest(initializerFactor))),
      ("initializer_range", .number(shortest(initializerRange))),
      ("intermediate_size", .integer(intermediateSize)),
      ("layer_norm_eps", .number(shortest(epsilon))),
      ("model_type", .string("intern_vit_6b")),
      ("norm_type", .string(norm.rawValue)),
      ("num_attention_heads", .integer(headCount)),
      ("num_channels", .integer(channelCount)),
      ("num_hidden_layers", .integer(layerCount)),
      ("patch_size", .integer(patchSize)),
      ("qk_normalization", .boolean(qkNormalization)),
      ("qkv_bias", .boolean(qkvBias)),
    ])
  }
}

/// The double that prints as the float does: 1e-6 rather than 9.999999974752427e-07.
func shortest(_ value: Float) -> Double { Double("\(value)") ?? Double(value) }
