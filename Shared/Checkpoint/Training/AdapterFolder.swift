import Tensors

/// Writes the adapters of one part of a model alone, as PEFT saves them: `adapter_config.json`
/// and `adapter_model.safetensors`.
public struct AdapterFolder: Sendable {
  /// Of a checkpoint, for the folders of its parts.
  static let folder = "adapter"

  /// What PEFT wrapped: "vision_model" or "language_model".
  public var part: String
  public var rank: Int
  public var alpha: Double
  public var dropout: Double
  /// The model that the adapters belong to, as PEFT is to find it.
  public var baseModel: String

  public init(part: String, rank: Int, alpha: Double, dropout: Double, baseModel: String) {
    self.part = part
    self.rank = rank
    self.alpha = alpha
    self.dropout = dropout
    self.baseModel = baseModel
  }

  /// - Parameters:
  ///   - adapters: by the names they have in the state of the wrapped model, such as
  ///     `language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight`;
  ///     those of other parts are left out.
  ///   - folder: made if it does not exist.
  /// - Throws: ``CheckpointError``.
  public func write(_ adapters: [(name: String, tensor: Tensor)], to folder: String) throws {
    try makeFolders(folder)
    let own = adapters.filter { $0.name.hasPrefix("\(part).") }.map { name, tensor in
      (name: savedName(name), tensor: tensor)
    }
    try SafetensorsWriter.write(own, to: "\(folder)/adapter_model.safetensors")
    try AtomicFile.write(
      Array(json(targets(own.map(\.name))).text.utf8), to: "\(folder)/adapter_config.json")
  }

  /// PEFT leaves out the part it wrapped, and the adapter's own name.
  private func savedName(_ name: String) -> String {
    let own = name.dropFirst(part.count + 1)
    for matrix in ["lora_A", "lora_B"] where own.hasSuffix(".\(matrix).default.weight") {
      return own.dropLast("default.weight".count) + "weight"
    }
    return String(own)
  }

  /// The modules with adapters, by the ends of their names that no layer's number is in.
  private func targets(_ names: [String]) -> [String] {
    let modules = names.compactMap { name -> String? in
      let parts = name.split(separator: ".")
      guard let matrix = parts.firstIndex(where: { $0 == "lora_A" || $0 == "lora_B" }),
        let number = parts.firstIndex(where: { $0.allSatisfy(\.isNumber) }), number < matrix
      else { return nil }
      return parts[(number + 1)..<matrix].joined(separator: ".")
    }
    return Set(modules).sorted()
  }

  private func json(_ targets: [String]) -> JSONValue {
    .object([
      ("auto_mapping", .null),
      ("base_model_name_or_path", .string(baseModel)),
      ("bias", .string("none")),
      ("fan_in_fan_out", .boolean(false)),
      ("inference_mode", .boolean(true)),
      ("init_lora_weights", .boolean(true)),
      ("layers_pattern", .null),
      ("layers_to_transform", .null),
      ("lora_alpha", .number(alpha)),
      ("lora_dropout", .number(dropout)),
      ("modules_to_save", .null),
      ("peft_type", .string("LORA")),
      ("r", .integer(rank)),
      ("target_modules", .array(targets.map { .string($0) })),
      ("task_type", part == "language_model" ? .string("CAUSAL_LM") : .null),
    ])
  }
}
