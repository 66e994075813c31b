/// The tokens of a tokenizer by id: SentencePiece's pieces, and the added tokens over and above
/// them, numbered as `PreTrainedTokenizer.__init__` of transformers 4.37.2 does.
struct Vocabulary: Sendable {
  struct Entry: Sendable {
    var bytes: [UInt8]
    /// Left out when decoding skips special tokens.
    var isSpecial = false
    /// Spelt like a special token.
    var isSpelledSpecial = false
    /// An added token that decoding sets apart by spaces.
    var standsAlone = false
  }

  /// Added tokens by what they are spelt like.
  let addedIDs: [[UInt8]: Int]
  let addedTokens: [Int: AddedToken]
  let specialSpellings: Set<[UInt8]>
  let bosID: Int?
  let eosID: Int?
  /// One more than the largest id.
  let count: Int

  /// Indexed by id.
  private let pieces: [Entry]
  /// Tokens beyond the model's pieces.
  private let extra: [Int: Entry]

  init(_ model: SentencePieceModel, _ configuration: TokenizerConfiguration) {
    var addedTokens = configuration.addedTokens
    var addedIDs: [[UInt8]: Int] = [:]
    for (id, token) in addedTokens.sorted(by: { $0.key < $1.key }) {
      addedIDs[Array(token.content.utf8)] = id
    }

    let named = TokenizerConfiguration.attributes.compactMap { configuration.specialTokens[$0] }
    var spellings: Set<[UInt8]> = []
    let specials = (named + configuration.additionalSpecialTokens).filter {
      spellings.insert(Array($0.token.content.utf8)).inserted
    }
    // Special tokens that are no added tokens yet become such: under the id of the piece that is
    // spelt the same, or a new one at the end.
    var known = Set(addedIDs.keys)
    for (id, piece) in model.pieces.enumerated() where addedTokens[id] == nil {
      known.insert(piece)
    }
    var next = known.count
    for special in specials where !special.token.content.isEmpty {
      let bytes = Array(special.token.content.utf8)
      var id = addedIDs[bytes]
      if id != nil && !special.hasFlags { continue }
      if id == nil && known.contains(bytes) { id = model.id(of: bytes) }
      if id == nil {
        id = next
        next += 1
      }
      guard let id else { continue }
      addedTokens[id] = special.token
      addedIDs[bytes] = id
    }
    self.addedTokens = addedTokens
    self.addedIDs = addedIDs
    specialSpellings = spellings

    func id(of token: AddedToken) -> Int {
      let bytes = Array(token.content.utf8)
      return addedIDs[bytes] ?? model.id(of: bytes)
    }
    bosID = configuration.specialTokens["bos_token"].map { id(of: $0.token) }
    eosID = configuration.specialTokens["eos_token"].map { id(of: $0.token) }
    let specialIDs = Set(specials.map { id(of: $0.token) })
    var standing = Set(addedIDs.keys).subtracting(spellings)
    for special in configuration.additionalSpecialTokens
    where id(of: special.token) >= model.pieces.count {
      standing.insert(Array(special.token.content.utf8))
    }

    func entry(_ id: Int, _ bytes: [UInt8]) -> Entry {
      Entry(
        bytes: bytes, isSpecial: specialIDs.contains(id),
        isSpelledSpecial: spellings.contains(bytes), standsAlone: standing.contains(bytes))
    }
    var pieces = model.pieces.enumerated().map { entry($0.offset, $0.element) }
    var extra: [Int: Entry] = [:]
    for (id, token) in addedTokens {
      let entry = entry(id, Array(token.content.utf8))
      if id < pieces.count { pieces[id] = entry } else { extra[id] = entry }
    }
    self.pieces = pieces
    self.extra = extra
    count = max(pieces.count, (extra.keys.max() ?? -1) + 1)
  }

  /// The token of an id; nil when there is none.
  subscript(id: Int) -> Entry? {
    pieces.indices.contains(id) ? pieces[id] : extra[id]
  }
}
