#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// A token that is matched on the raw text, before SentencePiece sees it.
struct AddedToken: Equatable, Sendable {
  var content: String
  /// Takes the whitespace before, or after it, away.
  var stripsLeft = false
  var stripsRight = false
  /// Matches only between spaces and the ends of the text.
  var isSingleWord = false
}

/// The JSON files beside tokenizer.model, read as transformers 4.37.2 reads them
/// (`PreTrainedTokenizerBase._from_pretrained`, `LlamaTokenizer.__init__`).
struct TokenizerConfiguration {
  /// A token named by an attribute such as `bos_token`. The reference registers one given with
  /// flags anew, and with them; one given as a bare string only when it is not an added token yet.
  struct SpecialToken: Equatable {
    var token: AddedToken
    var hasFlags: Bool
  }

  static let attributes = [
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
  ]

  static let maximumFileBytes = 8 << 20
  /// Ids beyond it are a mistake: no model has so many rows.
  static let maximumID = 1 << 24

  var addsBOS = true
  var addsEOS = false
  var isLegacy = true
  var splitsSpecialTokens = false
  var specialTokens: [String: SpecialToken]
  var additionalSpecialTokens: [SpecialToken] = []
  var addedTokens: [Int: AddedToken] = [:]

  /// - Parameter folder: may hold tokenizer_config.json, special_tokens_map.json and
  ///   added_tokens.json. The last two are read only if the first has no `added_tokens_decoder`.
  /// - Throws: ``TextError``.
  init(folder: String) throws {
    specialTokens = [
      "bos_token": SpecialToken(token: AddedToken(content: "<s>"), hasFlags: true),
      "eos_token": SpecialToken(token: AddedToken(content: "</s>"), hasFlags: true),
      "unk_token": SpecialToken(token: AddedToken(content: "<unk>"), hasFlags: true),
    ]
    let path = "\(folder)/tokenizer_config.json"
    let file = try Self.decode(ConfigurationFile.self, path) ?? ConfigurationFile()
    if let name = file.tokenizerClass, name != "LlamaTokenizer", name != "LlamaTokenizerFast" {
      throw TextError.unsupportedTokenizer(path: path, tokenizerClass: name)
    }
    addsBOS = file.addsBOS ?? addsBOS
    addsEOS = file.addsEOS ?? addsEOS
    isLegacy = file.isLegacy ?? isLegacy
    splitsSpecialTokens = file.splitsSpecialTokens ?? false
    take(file.specialTokens)

    if let addedTokens = file.addedTokens {
      try readAddedTokens(addedTokens, path)
    } else {
      let map = try Self.decode(SpecialTokens.self, "\(folder)/special_tokens_map.json")
      take(map ?? SpecialTokens())
      let addedPath = "\(folder)/added_tokens.json"
      for (content, id) in try Self.decode([String: Int].self, addedPath) ?? [:] {
        try add(AddedToken(content: content), id: id, path: addedPath)
      }
    }
  }

  private mutating func take(_ file: SpecialTokens) {
    for attribute in Self.attributes {
      guard let value = file.named[attribute] else { continue }
      guard var token = value else {
        specialTokens[attribute] = nil
        continue
      }
      // LlamaTokenizer gives these four flags when they come as bare strings.
      if ["bos_token", "eos_token", "unk_token", "pad_token"].contains(attribute) {
        token.hasFlags = true
      }
      specialTokens[attribute] = token
    }
    for token in file.additional where !additionalSpecialTokens.contains(token) {
      additionalSpecialTokens.append(token)
    }
  }

  private mutating func readAddedTokens(
    _ records: [String: AddedTokenRecord], _ path: String
  ) throws {
    var byContent: [[UInt8]: AddedToken] = [:]
    for (key, record) in records {
      guard let id = Int(key) else {
        throw TextError.invalidConfiguration(
          path: path, reason: "added_tokens_decoder has the key “\(key)”, which is not an id")
      }
      try add(record.token, id: id, path: path)
      byContent[Array(record.token.content.utf8)] = record.token
    }
    for (attribute, special) in specialTokens {
      if let token = byContent[Array(special.token.content.utf8)] {
        specialTokens[attribute] = SpecialToken(token: token, hasFlags: true)
      }
    }
  }

  private mutating func add(_ token: AddedToken, id: Int, path: String) throws {
    guard (0...Self.maximumID).contains(id) else {
      throw TextError.invalidConfiguration(
        path: path, reason: "the added token “\(token.content)” has the id \(id)")
    }
    guard !token.content.isEmpty else {
      throw TextError.invalidConfiguration(path: path, reason: "added token \(id) is empty")
    }
    guard addedTokens.updateValue(token, forKey: id) == nil else {
      throw TextError.invalidConfiguration(path: path, reason: "two added tokens have id \(id)")
    }
  }

  private static func decode<Value: Decodable>(_ type: Value.Type, _ path: String) throws -> Value?
  {
    guard let bytes = try BoundedFile.read(path, limit: maximumFileBytes) else { return nil }
    do {
      return try JSONDecoder().decode(type, from: Data(bytes))
    } catch let error as DecodingError {
      throw TextError.invalidConfiguration(path: path, reason: describe(error))
    } catch {
      throw TextError.invalidConfiguration(path: path, reason: "\(error)")
    }
  }

  private static func describe(_ error: DecodingError) -> String {
    switch error {
    case .typeMismatch(_, let context), .valueNotFound(_, let context),
      .keyNotFound(_, let context), .dataCorrupted(let context):
      let place = context.codingPath.map(\.stringValue).joined(separator: ".")
      return (place.isEmpty ? "" : "\(place): ") + context.debugDescription
    @unknown default:
      return "\(error)"
    }
  }
}

// MARK: - The files as written

private struct Key: CodingKey {
  var stringValue: String
  var intValue: Int? { nil }
  init(stringValue: String) { self.stringValue = stringValue }
  init?(intValue: Int) { nil }
}

/// An added token written as an object.
private struct AddedTokenRecord: Decodable {
  var token: AddedToken

  init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: Key.self)
    func flag(_ name: String) throws -> Bool {
      try fields.decodeIfPresent(Bool.self, forKey: Key(stringValue: name)) ?? false
    }
    token = AddedToken(
      content: try fields.decode(String.self, forKey: Key(stringValue: "content")),
      stripsLeft: try flag("lstrip"), stripsRight: try flag("rstrip"),
      isSingleWord: try flag("single_word"))
  }
}

/// The attributes that name special tokens, each a string, an object, or null.
private struct SpecialTokens: Decodable {
  var named: [String: TokenizerConfiguration.SpecialToken?] = [:]
  var additional: [TokenizerConfiguration.SpecialToken] = []

  private struct Value: Decodable {
    var special: TokenizerConfiguration.SpecialToken

    init(from decoder: any Decoder) throws {
      if let content = try? decoder.singleValueContainer().decode(String.self) {
        special = .init(token: AddedToken(content: content), hasFlags: false)
      } else {
        special = .init(token: try AddedTokenRecord(from: decoder).token, hasFlags: true)
      }
    }
  }

  init() {}

  init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: Key.self)
    for name in TokenizerConfiguration.attributes {
      let key = Key(stringValue: name)
      guard fields.contains(key) else { continue }
      let value = try fields.decodeIfPresent(Value.self, forKey: key)
      named.updateValue(value?.special, forKey: name)
    }
    let key = Key(stringValue: "additional_special_tokens")
    additional = try (fields.decodeIfPresent([Value].self, forKey: key) ?? []).map(\.special)
  }
}

/// tokenizer_config.json.
private struct ConfigurationFile: Decodable {
  var tokenizerClass: String?
  var addsBOS: Bool?
  var addsEOS: Bool?
  var isLegacy: Bool?
  var splitsSpecialTokens: Bool?
  var addedTokens: [String: AddedTokenRecord]?
  var specialTokens = SpecialTokens()

  private enum CodingKeys: String, CodingKey {
    case tokenizerClass = "tokenizer_class"
    case addsBOS = "add_bos_token"
    case addsEOS = "add_eos_token"
    case isLegacy = "legacy"
    case splitsSpecialTokens = "split_special_tokens"
    case addedTokens = "added_tokens_decoder"
  }

  init() {}

  init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: CodingKeys.self)
    tokenizerClass = try fields.decodeIfPresent(String.self, forKey: .tokenizerClass)
    addsBOS = try fields.decodeIfPresent(Bool.self, forKey: .addsBOS)
    addsEOS = try fields.decodeIfPresent(Bool.self, forKey: .addsEOS)
    isLegacy = try fields.decodeIfPresent(Bool.self, forKey: .isLegacy)
    splitsSpecialTokens = try fields.decodeIfPresent(Bool.self, forKey: .splitsSpecialTokens)
    addedTokens = try fields.decodeIfPresent(
      [String: AddedTokenRecord].self, forKey: .addedTokens)
    specialTokens = try SpecialTokens(from: decoder)
  }
}
