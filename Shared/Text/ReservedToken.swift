/// Tokens that only the program may write into a prompt.
enum ReservedToken {
  /// - Throws: ``TextError/reservedToken(token:turn:)`` when the text contains one of the tokens.
  static func check(_ text: String, for tokens: [String], turn: Int?) throws {
    // Compared as bytes, as the tokenizer will: Swift characters may swallow a combining mark.
    let bytes = Array(text.utf8)
    for token in tokens where bytes.firstRange(of: Array(token.utf8)) != nil {
      throw TextError.reservedToken(token: token, turn: turn)
    }
  }
}
