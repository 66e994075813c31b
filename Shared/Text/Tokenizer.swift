/// Text to token ids and back, as the slow `LlamaTokenizer` of transformers 4.37.2 does it.
///
/// Added tokens are split off on the raw text; SentencePiece encodes what lies between. With
/// `legacy` false in tokenizer_config.json, text after a special token gets no space of its own.
/// Where two ids are possible for a text, the reference's is chosen. One deviation: of added tokens
/// that overlap, the leftmost and there the longest one counts; the reference sometimes loses one.
public final class Tokenizer: Sendable {
  /// Longest text that is encoded. SentencePiece takes some 250 bytes of memory for each, and a
  /// second for all; a context of 4,096 tokens is far shorter.
  public static let maximumTextBytes = 1 << 20

  let model: SentencePieceModel
  let vocabulary: Vocabulary
  private let configuration: TokenizerConfiguration
  private let trie: AddedTokenTrie
  private let unknownToken: [UInt8]
  /// Pieces of the unknown token's own spelling.
  private let unknownTokenLength: Int

  /// - Parameter folder: a checkpoint: tokenizer.model and, as found, tokenizer_config.json,
  ///   special_tokens_map.json, added_tokens.json.
  /// - Throws: ``TextError``.
  public init(folder: String) throws {
    configuration = try TokenizerConfiguration(folder: folder)
    let path = "\(folder)/tokenizer.model"
    guard
      let contents = try BoundedFile.read(path, limit: SentencePieceModel.maximumFileBytes)
    else { throw TextError.unreadableFile(path: path, reason: "there is no such file") }
    model = try SentencePieceModel(
      contents: contents, path: path, addsDummyPrefix: configuration.isLegacy)
    vocabulary = Vocabulary(model, configuration)
    trie = AddedTokenTrie(vocabulary.addedIDs.keys)

    let configurationPath = "\(folder)/tokenizer_config.json"
    if configuration.addsBOS && vocabulary.bosID == nil
      || configuration.addsEOS && vocabulary.eosID == nil
    {
      throw TextError.invalidConfiguration(
        path: configurationPath,
        reason: "add_bos_token or add_eos_token is true, but there is no such token")
    }
    unknownToken = Array((configuration.specialTokens["unk_token"]?.token.content ?? "").utf8)
    guard configuration.isLegacy || !unknownToken.isEmpty else {
      throw TextError.invalidConfiguration(
        path: configurationPath, reason: "legacy is false, which needs an unk_token")
    }
    unknownTokenLength = configuration.isLegacy ? 0 : try model.encode(unknownToken).count
  }

  /// One more than the largest id: the rows that the model's embedding must have at least.
  public var vocabularySize: Int { vocabulary.count }

  /// The id of an added token or a piece, spelt exactly; nil when there is no such token.
  public func id(of token: String) -> Int? {
    let bytes = Array(token.utf8)
    return vocabulary.addedIDs[bytes] ?? (model.knows(bytes) ? model.id(of: bytes) : nil)
  }

  /// The spelling of a token; spaces are written `▁`. nil when there is no such token.
  public func token(of id: Int) -> String? {
    vocabulary[id].map { String(decoding: $0.bytes, as: UTF8.self) }
  }

  /// The bytes that a token stands for inside a text, its space included, and perhaps only a part of
  /// a character; an added token's are its spelling. Empty when there is no such token.
  public func bytes(of id: Int) -> [UInt8] {
    guard let token = vocabulary[id] else { return [] }
    return vocabulary.addedTokens[id] == nil ? PieceDecoder.bytes(of: id, model) : token.bytes
  }

  /// Whether decoding leaves the token out when it skips special tokens.
  public func isSpecial(_ id: Int) -> Bool { vocabulary[id]?.isSpecial ?? false }

  public var bosID: Int? { vocabulary.bosID }
  public var eosID: Int? { vocabulary.eosID }

  /// The ids of a text, with BOS and EOS as tokenizer_config.json wants them.
  ///
  /// - Throws: ``TextError/oversizedText(bytes:limit:)``, ``TextError/encodingFailed(reason:)``.
  public func encode(_ text: String) throws -> [Int] {
    var ids = try tokenize(Array(text.utf8)).map(\.id)
    if configuration.addsBOS, let bos = vocabulary.bosID { ids.insert(bos, at: 0) }
    if configuration.addsEOS, let eos = vocabulary.eosID { ids.append(eos) }
    return ids
  }
}

// MARK: - Encoding

private let spaceSymbol: [UInt8] = [0xE2, 0x96, 0x81]  // ▁
private let space = UInt8(ascii: " ")

extension Tokenizer {
  private func tokenize(_ text: [UInt8]) throws -> [SentencePieceModel.Piece] {
    guard text.count <= Self.maximumTextBytes else {
      throw TextError.oversizedText(bytes: text.count, limit: Self.maximumTextBytes)
    }
    guard !configuration.isLegacy && !text.isEmpty else { return try tokenizeAround(text) }
    let plain = text.replacing(spaceSymbol, with: CollectionOfOne(space))
    var pieces = try tokenizeAround(spaceSymbol + plain)
    if pieces.count > 1, pieces[0].bytes == spaceSymbol,
      vocabulary.specialSpellings.contains(pieces[1].bytes)
    {
      pieces.removeFirst()
    }
    return pieces
  }

  /// Splits added tokens off and encodes what lies between them.
  private func tokenizeAround(_ text: [UInt8]) throws -> [SentencePieceModel.Piece] {
    var parts = configuration.splitsSpecialTokens ? [text[...]] : trie.split(text)
    if !configuration.splitsSpecialTokens { applyFlags(to: &parts) }
    var pieces: [SentencePieceModel.Piece] = []
    for part in parts where !part.isEmpty {
      let bytes = Array(part)
      if !configuration.splitsSpecialTokens, let id = vocabulary.addedIDs[bytes] {
        pieces.append(.init(bytes: bytes, id: id))
        continue
      }
      for var piece in try encodePlain(bytes) {
        if let added = vocabulary.addedIDs[piece.bytes] { piece.id = added }
        pieces.append(piece)
      }
    }
    return pieces
  }

  /// Lets added tokens take whitespace away, and gives up those that do not stand alone as words.
  private func applyFlags(to parts: inout [ArraySlice<UInt8>]) {
    for index in parts.indices {
      guard let id = vocabulary.addedIDs[Array(parts[index])],
        let token = vocabulary.addedTokens[id]
      else { continue }
      guard token.stripsLeft || token.stripsRight || token.isSingleWord else { continue }
      let left = index > 0 ? parts[index - 1] : []
      let right = index + 1 < parts.count ? parts[index + 1] : []
      if token.stripsRight, !right.isEmpty {
        parts[index + 1] = Whitespace.strippingLeft(right)
      }
      if token.stripsLeft, !left.isEmpty {
        parts[index - 1] = Whitespace.strippingRight(left)
      }
      // The neighbours are looked at as they were before stripping, as in the reference.
      if token.isSingleWord, let last = left.last, last != space {
        parts[index - 1] += parts[index]
        parts[index] = []
      } else if token.isSingleWord, let first = right.first, first != space {
        parts[index + 1] = parts[index] + parts[index + 1]
        parts[index] = []
      }
    }
  }

  private func encodePlain(_ text: [UInt8]) throws -> [SentencePieceModel.Piece] {
    guard !configuration.isLegacy, text.starts(with: spaceSymbol) || text.first == space else {
      return try model.encode(text)
    }
    // SentencePiece may drop a space at the front, so something goes before it and is cut off
    // again.
    let pieces = try model.encode(unknownToken + text)
    return pieces.count >= unknownTokenLength ? Array(pieces.dropFirst(unknownTokenLength)) : pieces
  }
}

// MARK: - Decoding

extension Tokenizer {
  /// The text of some ids, as `decode(ids, skip_special_tokens=…,
  /// clean_up_tokenization_spaces=False)` gives it.
  ///
  /// Added tokens that are not skipped are set apart by spaces. Bytes that form no character become
  /// U+FFFD, one each. Ids of no token give nothing.
  public func decode(_ ids: [Int], skippingSpecialTokens: Bool = true) -> String {
    var texts: [[UInt8]] = []
    var run: [Vocabulary.Entry] = []
    for id in ids {
      guard let token = vocabulary[id], !(skippingSpecialTokens && token.isSpecial) else {
        continue
      }
      if token.standsAlone {
        let text = string(of: run)
        if !text.isEmpty { texts.append(text) }
        run = []
        texts.append(token.bytes)
      } else {
        run.append(token)
      }
    }
    if !run.isEmpty { texts.append(string(of: run)) }
    return String(decoding: Array(texts.joined(separator: [space])), as: UTF8.self)
  }

  /// `LlamaTokenizer.convert_tokens_to_string`.
  private func string(of run: [Vocabulary.Entry]) -> [UInt8] {
    var text: [UInt8] = []
    var plain: [UInt8] = []
    var decoder = PieceDecoder(model)
    var previousIsSpecial = false
    for (index, token) in run.enumerated() {
      var bytes = token.bytes[...]
      if index == 0, bytes.starts(with: spaceSymbol) { bytes = bytes.dropFirst(3) }
      let isSpecial =
        index == 0 ? vocabulary.specialSpellings.contains(Array(bytes)) : token.isSpelledSpecial
      if isSpecial {
        // Before the text that precedes the token, not after it: so the reference has it.
        if !previousIsSpecial && index != 0 && configuration.isLegacy { text.append(space) }
        decoder.finish(into: &plain)
        text += plain + bytes
        plain = []
        decoder = PieceDecoder(model)
      } else {
        decoder.append(bytes, into: &plain)
      }
      previousIsSpecial = isSpecial
    }
    decoder.finish(into: &plain)
    return text + plain
  }
}
