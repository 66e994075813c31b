import Tensors

/// How the weights of a model's linear layers and embedding tables are stored: what config.json
/// says under `quantization_config`, and what `chiasm quantize` does.
///
/// It tells of a model's parts; what a single tensor is, the header of its file says. A weight
/// whose rows are no multiple of a block stays as it is. Norms, biases, layer scales, positions,
/// the class token and the patch embedding are never quantised.
public struct QuantisationRecipe: Sendable, Hashable {
  public enum Storage: String, Sendable, Hashable, CaseIterable {
    /// Rows, not quantised.
    case bfloat16
    /// Panels.
    case q8, q4

    public var format: PackedMatrix.Format? {
      switch self {
      case .bfloat16: nil
      case .q8: .q8
      case .q4: .q4
      }
    }
  }

  public enum Part: String, Sendable, Hashable, CaseIterable {
    case vision, projector, language, embedding, head
  }

  private var storages: [Part: Storage]

  /// `type` for the language model's layers. Everything else has 8 bits: InternViT-6B is known to
  /// break at 4, and embedding and head are small beside what an error in them costs.
  public init(_ type: Storage) {
    storages = [:]
    for part in Part.allCases { storages[part] = type == .bfloat16 ? .bfloat16 : .q8 }
    storages[.language] = type
  }

  public subscript(part: Part) -> Storage {
    get { storages[part] ?? .bfloat16 }
    set { storages[part] = newValue }
  }

  /// The same, with the head stored as the embedding where it is the embedding.
  public func adapted(to configuration: ModelConfiguration) -> QuantisationRecipe {
    var recipe = self
    if configuration.language.tiesEmbeddings { recipe[.head] = recipe[.embedding] }
    return recipe
  }

  /// What a weight is stored as: nil for one that is not quantised and keeps its type.
  public func storage(of weight: Weight) -> Storage? {
    guard let part = WeightNames.part(of: weight) else { return nil }
    let storage = self[part]
    guard let format = storage.format else { return storage }
    return PanelLayout(format, outputs: weight.shape[0], depth: weight.shape[1]) == nil
      ? nil : storage
  }
}

// MARK: config.json

extension QuantisationRecipe {
  static let key = "quantization_config"
  static let method = "chiasm"
  private static let version = 1

  var json: JSONValue {
    .object(
      [
        ("quant_method", .string(QuantisationRecipe.method)),
        ("version", .integer(QuantisationRecipe.version)),
      ] + Part.allCases.map { ($0.rawValue, .string(self[$0].rawValue)) })
  }

  /// - Parameter object: what `quantization_config` holds.
  /// - Throws: ``CheckpointError`` when it is none of ours.
  init(_ object: ConfigurationObject) throws {
    let method = try object.string("quant_method") ?? "not given"
    guard method == QuantisationRecipe.method else {
      throw object.unsupported(
        "quant_method", method,
        "models that are not quantised, and those that chiasm quantize wrote")
    }
    let version = try object.integer("version", in: 1...Int.max)
    guard version == QuantisationRecipe.version else {
      throw object.unsupported("version", "\(version)", "version \(QuantisationRecipe.version)")
    }
    self.init(.bfloat16)
    for part in Part.allCases {
      let name = try object.requiredString(part.rawValue)
      guard let storage = Storage(rawValue: name) else {
        throw object.unsupported(
          part.rawValue, name, Storage.allCases.map(\.rawValue).joined(separator: ", "))
      }
      self[part] = storage
    }
  }

  /// What config.json says; nil of a model that is not quantised.
  ///
  /// - Throws: ``CheckpointError`` when the model is quantised in another way.
  static func read(_ configuration: ConfigurationObject) throws -> QuantisationRecipe? {
    for part in ["llm_config", "vision_config"] {
      guard let inner = try configuration.object(part)?.object(key) else { continue }
      throw inner.unsupported(
        "quant_method", try inner.string("quant_method") ?? "not given",
        "models that are quantised as a whole, by chiasm quantize")
    }
    return try configuration.object(key).map { try QuantisationRecipe($0) }
  }
}

extension WeightNames {
  /// Which part a weight [N, K] belongs to that a product or a look-up reads; nil for others.
  static func part(of weight: Weight) -> QuantisationRecipe.Part? {
    guard weight.shape.count == 2, weight.name.hasSuffix(".weight") else { return nil }
    if weight.name.hasPrefix("vision_model.encoder.layers.") { return .vision }
    if weight.name.hasPrefix("mlp1.") { return .projector }
    if weight.name.hasPrefix("language_model.model.layers.") { return .language }
    if weight.name == languageEmbeddingName { return .embedding }
    return weight.name == languageHeadName ? .head : nil
  }
}
