/// config.json of a model that is put together: the parts' own objects under the release's keys
/// (configuration_internvl_chat.py).
enum AssembledConfiguration {
  /// - Throws: ``CheckpointError`` when a part's config.json is missing or no object.
  static func json(_ assembly: ModelAssembly) throws -> JSONValue {
    let type = JSONValue.string(assembly.scalarType.rawValue)
    let vision = try members(assembly.parts.vision)
    var language = try members(assembly.parts.language)
    let rows = value("vocab_size", in: language)
    // Tables longer than the tokenizer stay so when no token is new.
    if !assembly.growth.new.isEmpty || rows == nil {
      set("vocab_size", .integer(assembly.growth.size), in: &language)
    }
    set("torch_dtype", type, in: &language)
    var encoder = vision
    set("torch_dtype", type, in: &encoder)
    for key in ["_name_or_path", "auto_map"] {
      encoder.removeAll { $0.0 == key }
      language.removeAll { $0.0 == key }
    }
    let size = assembly.imageSize.map { .integer($0) } ?? value("image_size", in: vision)
    func chat(_ part: String, _ name: String) -> JSONValue {
      .string("\(part)_internvl_chat.InternVLChat\(name)")
    }
    var all: [(String, JSONValue)] = [
      ("architectures", .array([.string("InternVLChatModel")])),
      (
        "auto_map",
        .object([
          ("AutoConfig", chat("configuration", "Config")),
          ("AutoModel", chat("modeling", "Model")),
          ("AutoModelForCausalLM", chat("modeling", "Model")),
        ])
      ),
      ("downsample_ratio", .number(shortest(assembly.downsampleRatio))),
      ("dynamic_image_size", .boolean(false)),
      ("force_image_size", size ?? .null),
      ("hidden_size", value("hidden_size", in: language) ?? .null),
      ("llm_config", .object(language)),
      ("max_dynamic_patch", .integer(6)),
      ("min_dynamic_patch", .integer(1)),
      ("model_type", .string("internvl_chat")),
      ("pad2square", .boolean(false)),
      ("ps_version", .string(assembly.pixelShuffle.rawValue)),
      ("select_layer", .integer(assembly.selectLayer)),
    ]
    if let message = assembly.systemMessage { all.append(("system_message", .string(message))) }
    all += [
      ("template", .string(assembly.template)),
      ("tie_word_embeddings", value("tie_word_embeddings", in: language) ?? .boolean(false)),
      ("torch_dtype", type),
      ("transformers_version", .null),
      ("use_backbone_lora", .integer(0)),
      ("use_llm_lora", .integer(0)),
      ("use_thumbnail", .boolean(false)),
      ("vision_config", .object(encoder)),
    ]
    return .object(all)
  }

  private static func members(_ folder: String) throws -> [(String, JSONValue)] {
    try requireFolder(folder)
    let path = "\(folder)/config.json"
    let value = try JSONValue.parse(
      readFile(path, limit: Limits.configurationBytes), file: path)
    guard case .object(let members) = value else {
      throw CheckpointError.wrongType(file: path, key: "the whole", expected: "an object")
    }
    return members
  }

  private static func value(_ key: String, in members: [(String, JSONValue)]) -> JSONValue? {
    members.first { $0.0 == key }?.1
  }

  private static func set(
    _ key: String, _ value: JSONValue, in members: inout [(String, JSONValue)]
  ) {
    if let index = members.firstIndex(where: { $0.0 == key }) {
      members[index].1 = value
    } else {
      members.append((key, value))
    }
  }
}
