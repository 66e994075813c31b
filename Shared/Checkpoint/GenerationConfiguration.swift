/// What generation_config.json says.
public struct GenerationConfiguration: Sendable, Equatable {
  /// Tokens that end an answer.
  public var endTokens: [Int]

  public init(endTokens: [Int]) { self.endTokens = endTokens }

  /// Reads `generation_config.json` in `folder`. Without the file or its `eos_token_id`, the
  /// language model's own end tokens count.
  ///
  /// - Throws: ``CheckpointError`` when the file is there but not readable as such.
  public static func load(
    folder: String, language: LanguageConfiguration
  ) throws -> GenerationConfiguration {
    let path = "\(folder)/generation_config.json"
    guard fileExists(path) else { return GenerationConfiguration(endTokens: language.eosTokens) }
    let object = try ConfigurationObject(
      readFile(path, limit: Limits.configurationBytes), file: path)
    let tokens = try object.tokens("eos_token_id") ?? []
    return GenerationConfiguration(endTokens: tokens.isEmpty ? language.eosTokens : tokens)
  }

  var json: JSONValue {
    .object([("eos_token_id", .array(endTokens.map { .integer($0) }))])
  }
}
