/// Token ids to text as they come, special tokens skipped.
///
/// Everything returned, joined, is what ``Tokenizer/decode(_:skippingSpecialTokens:)`` gives for
/// all the ids. (Not for a tokenizer in which two ids are spelt like one special token, of which
/// only one is skipped: the reference then puts a space before text that has long been sent.)
public struct StreamingDetokenizer: Sendable {
  private let tokenizer: Tokenizer
  private var decoder: PieceDecoder
  /// Since the last token that stands alone.
  private var runHasTokens = false
  private var runHasText = false
  private var hasEarlierText = false

  public init(tokenizer: Tokenizer) {
    self.tokenizer = tokenizer
    decoder = PieceDecoder(tokenizer.model)
  }

  /// The text that is certain now; often empty, never half a character.
  public mutating func append(_ id: Int) -> String {
    guard let token = tokenizer.vocabulary[id], !token.isSpecial else { return "" }
    var text: [UInt8] = []
    if token.standsAlone {
      decoder.finish(into: &text)
      var result = separated(text)
      if hasEarlierText || runHasText { result.append(Self.space) }
      result += token.bytes
      decoder = PieceDecoder(tokenizer.model)
      runHasTokens = false
      runHasText = false
      hasEarlierText = true
      return String(decoding: result, as: UTF8.self)
    }
    var bytes = token.bytes[...]
    if !runHasTokens, bytes.starts(with: [0xE2, 0x96, 0x81]) { bytes = bytes.dropFirst(3) }
    runHasTokens = true
    decoder.append(bytes, into: &text)
    return String(decoding: separated(text), as: UTF8.self)
  }

  /// The rest of the text. Nothing may be appended afterwards.
  public mutating func finish() -> String {
    var text: [UInt8] = []
    decoder.finish(into: &text)
    var result = separated(text)
    // The reference joins even an empty run to what came before it.
    if runHasTokens && !runHasText && hasEarlierText { result.append(Self.space) }
    runHasTokens = false
    return String(decoding: result, as: UTF8.self)
  }

  private static let space = UInt8(ascii: " ")

  /// Puts the space before the first text that follows a token standing alone.
  private mutating func separated(_ text: [UInt8]) -> [UInt8] {
    guard !text.isEmpty, !runHasText else { return text }
    runHasText = true
    return hasEarlierText ? [Self.space] + text : text
  }
}
