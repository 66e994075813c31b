/// Pieces to text, one at a time, as `SentencePieceProcessor::Decode` does it to all at once.
struct PieceDecoder {
  private let model: SentencePieceModel
  /// Whether a space at the start of the next piece is the dummy prefix.
  private var expectsPrefix = true
  private var prefixSeen = false
  private var isEmpty = true
  /// Bytes of a character that is not complete yet.
  private var pending: [UInt8] = []

  init(_ model: SentencePieceModel) {
    self.model = model
  }

  /// Appends what became certain; never part of a character.
  mutating func append(_ piece: some Collection<UInt8>, into text: inout [UInt8]) {
    let bytes = Array(piece)
    let id = model.id(of: bytes)
    let start = text.count
    defer { if text.count > start { isEmpty = false } }
    if model.kinds[id] == .byte {
      pending.append(Self.value(ofBytePiece: bytes))
      emitPending(isFinal: false, into: &text)
      return
    }
    emitPending(isFinal: true, into: &text)
    if prefixSeen || !isEmpty || text.count > start { expectsPrefix = false }
    prefixSeen = false
    switch model.kinds[id] {
    case .control:
      return
    case .unknown:
      text += model.pieces[id] == bytes ? model.unknownSurface : bytes
    default:
      var rest = bytes[...]
      if expectsPrefix, model.stripsLeadingSpace, rest.starts(with: Self.spaceSymbol) {
        rest = rest.dropFirst(3)
        // Where extra spaces are removed, all leading ones go, not just the first.
        prefixSeen = !model.removesExtraWhitespaces
      }
      text += rest.replacing(Self.spaceSymbol, with: CollectionOfOne(UInt8(ascii: " ")))
    }
  }

  /// Appends what is left: bytes of a character that was never completed.
  mutating func finish(into text: inout [UInt8]) {
    emitPending(isFinal: true, into: &text)
  }

  /// What a piece stands for by itself.
  static func bytes(of id: Int, _ model: SentencePieceModel) -> [UInt8] {
    let piece = model.pieces[id]
    return model.kinds[id] == .byte
      ? [value(ofBytePiece: piece)]
      : piece.replacing(spaceSymbol, with: CollectionOfOne(UInt8(ascii: " ")))
  }

  private static let spaceSymbol: [UInt8] = [0xE2, 0x96, 0x81]
  private static let replacement: [UInt8] = [0xEF, 0xBF, 0xBD]

  /// `<0x41>` → 0x41.
  private static func value(ofBytePiece piece: [UInt8]) -> UInt8 {
    UInt8(String(decoding: piece.dropFirst(3).prefix(2), as: UTF8.self), radix: 16) ?? 0
  }

  private mutating func emitPending(isFinal: Bool, into text: inout [UInt8]) {
    while let lead = pending.first {
      let size = lead < 0x80 ? 1 : lead < 0xC0 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
      if pending.count < size && !isFinal { return }
      let character = pending.prefix(size)
      if character.count == size, String(validating: character, as: UTF8.self)?.isEmpty == false {
        text += character
        pending.removeFirst(size)
      } else {
        text += Self.replacement
        pending.removeFirst()
      }
    }
  }
}
