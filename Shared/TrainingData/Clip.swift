/// What messages show of texts that come with the data, which may be megabytes of anything.
public enum Clip {
  /// The beginning, those characters that would move a terminal's cursor or turn its writing
  /// around written as `\u{…}`.
  public static func text(_ text: some StringProtocol, characters limit: Int = 80) -> String {
    var shown = ""
    var count = 0
    for scalar in text.unicodeScalars {
      guard count < limit else { return shown + "…" }
      count += 1
      if isVisible(scalar) {
        shown.unicodeScalars.append(scalar)
      } else {
        shown += "\\u{\(String(scalar.value, radix: 16, uppercase: true))}"
      }
    }
    return shown
  }

  /// The same of the end, which says most of a path.
  static func path(_ path: String) -> String {
    let limit = 160
    let scalars = path.unicodeScalars
    let end = scalars.index(scalars.endIndex, offsetBy: -limit, limitedBy: scalars.startIndex)
    guard let end, end > scalars.startIndex else { return text(path, characters: limit) }
    return "…" + text(String(scalars[end...]), characters: limit)
  }

  private static func isVisible(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate: false
    default: true
    }
  }
}
