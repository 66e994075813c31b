/// Splits a command written as one string into words, as a POSIX shell would: spaces, quotes and
/// backslashes; no expansion of any kind.
enum ShellWords {
  /// - Returns: the words; nil when a quote or a backslash has no end.
  static func split(_ text: String) -> [String]? {
    var words: [String] = []
    var word = ""
    var hasWord = false
    var quote: Character?
    var characters = text.makeIterator()
    while let character = characters.next() {
      switch (quote, character) {
      case ("'", "'"), ("\"", "\""):
        quote = nil
      case ("\"", "\\"):
        guard let escaped = characters.next() else { return nil }
        if !"\"\\$`\n".contains(escaped) { word.append("\\") }
        if escaped != "\n" { word.append(escaped) }
      case (_?, _):
        word.append(character)
      case (nil, "'"), (nil, "\""):
        quote = character
        hasWord = true
      case (nil, "\\"):
        guard let escaped = characters.next() else { return nil }
        if escaped != "\n" {
          word.append(escaped)
          hasWord = true
        }
      case (nil, _) where character.isWhitespace:
        if hasWord { words.append(word) }
        word = ""
        hasWord = false
      default:
        word.append(character)
        hasWord = true
      }
    }
    guard quote == nil else { return nil }
    if hasWord { words.append(word) }
    return words
  }
}
