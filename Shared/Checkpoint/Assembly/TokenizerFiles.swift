/// Writes a tokenizer's files with the tokens of a ``TokenizerGrowth`` in them, as transformers'
/// `add_tokens(…, special_tokens=True)` and `save_pretrained` would.
enum TokenizerFiles {
  private static let configuration = "tokenizer_config.json"
  private static let map = "special_tokens_map.json"
  private static let added = "added_tokens.json"
  private static let maximumBytes = 64 << 20

  /// - Throws: ``CheckpointError`` when the folder has no tokenizer.model, or a file of it is not
  ///   what it should be.
  static func write(from source: String, growth: TokenizerGrowth, to folder: String) throws {
    try requireFolder(source)
    try copy("tokenizer.model", source, folder)
    // tokenizer.json, from which fast tokenizers are made, would lack the new tokens.
    var members = try object(configuration, source)
    var hasDecoder = false
    for index in members.indices where members[index].0 == "added_tokens_decoder" {
      guard case .object(var decoder) = members[index].1 else {
        throw CheckpointError.wrongType(
          file: "\(source)/\(configuration)", key: "added_tokens_decoder",
          expected: "an object")
      }
      hasDecoder = true
      for (token, id) in growth.ids {
        decoder.removeAll { $0.0 == "\(id)" }
        decoder.append(("\(id)", record(token)))
      }
      decoder.sort { (Int($0.0) ?? 0) < (Int($1.0) ?? 0) }
      members[index].1 = .object(decoder)
    }
    if !members.isEmpty {
      addSpecialTokens(growth, to: &members)
      try write(members, configuration, folder)
    }
    var special = try object(map, source)
    addSpecialTokens(growth, to: &special)
    try write(special, map, folder)

    var ids = try object(added, source)
    let old = Set(ids.map(\.0))
    for (index, token) in growth.new.enumerated() where !old.contains(token) {
      ids.append((token, .integer(growth.oldSize + index)))
    }
    // Without a decoder these are the only place that gives ids; pieces have theirs anyway.
    if !ids.isEmpty || !hasDecoder { try write(ids, added, folder) }
  }

  private static func copy(_ name: String, _ source: String, _ folder: String) throws {
    try AtomicFile.write(
      readFile("\(source)/\(name)", limit: maximumBytes), to: "\(folder)/\(name)")
  }

  /// Members of a file's object; none when there is no file.
  private static func object(
    _ name: String, _ folder: String
  ) throws -> [(String, JSONValue)] {
    let path = "\(folder)/\(name)"
    guard fileExists(path) else { return [] }
    let value = try JSONValue.parse(readFile(path, limit: maximumBytes), file: path)
    guard case .object(let members) = value else {
      throw CheckpointError.wrongType(file: path, key: "the whole", expected: "an object")
    }
    return members
  }

  private static func write(
    _ members: [(String, JSONValue)], _ name: String, _ folder: String
  ) throws {
    try AtomicFile.write(
      Array(JSONValue.object(members).text.utf8), to: "\(folder)/\(name)")
  }

  private static func addSpecialTokens(
    _ growth: TokenizerGrowth, to members: inout [(String, JSONValue)]
  ) {
    let key = "additional_special_tokens"
    var tokens: [JSONValue] = []
    if let index = members.firstIndex(where: { $0.0 == key }) {
      if case .array(let found) = members[index].1 { tokens = found }
      members.remove(at: index)
    }
    let known = Set(tokens.compactMap(content))
    tokens += TokenizerGrowth.tokens.filter { !known.contains($0) }.map { .string($0) }
    members.append((key, .array(tokens)))
  }

  /// What a special token is, written as a string or as an object.
  private static func content(_ value: JSONValue) -> String? {
    switch value {
    case .string(let text): return text
    case .object(let members):
      for case ("content", .string(let text)) in members { return text }
      return nil
    default: return nil
    }
  }

  private static func record(_ token: String) -> JSONValue {
    .object([
      ("content", .string(token)), ("lstrip", .boolean(false)), ("normalized", .boolean(false)),
      ("rstrip", .boolean(false)), ("single_word", .boolean(false)), ("special", .boolean(true)),
    ])
  }
}
