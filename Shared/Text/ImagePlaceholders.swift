/// Puts image tokens into a conversation (`InternVLChatModel.chat` of OpenGVLab/InternVL).
///
/// Each `<image>` in a user's turn becomes `<img>`, one `<IMG_CONTEXT>` for each image row, and
/// `</img>`. Nobody but this type may write these three: a text that contains one of them is
/// refused, whoever said it, since an `<IMG_CONTEXT>` in the wrong place would shift every image
/// row behind it. `<ref>`, `<box>` and `<quad>` are for users and stay allowed.
public enum ImagePlaceholders {
  public static let placeholder = "<image>"
  public static let start = "<img>"
  public static let context = "<IMG_CONTEXT>"
  public static let end = "</img>"

  static let reservedTokens = [context, start, end]

  /// What one image looks like to the tokenizer.
  public static func tokens(rows: Int) -> String {
    start + String(repeating: context, count: rows) + end
  }

  /// Replaces the placeholders in user turns by image tokens, left to right. To be called for every
  /// conversation that comes from outside, with or without images, before it is rendered.
  ///
  /// A conversation with images and no placeholder gets one for each, a line each, before the
  /// first user's words. A placeholder in another's turn is plain text.
  /// - Parameter rows: for each image in order, its rows: tokens of a tile times tiles.
  /// - Throws: ``TextError/reservedToken(token:turn:)``,
  ///   ``TextError/imageCountMismatch(placeholders:images:)``,
  ///   ``TextError/invalidImageTokenCount(image:tokens:)``.
  public static func expand(_ turns: [ChatTurn], rows: [Int]) throws -> [ChatTurn] {
    for (index, turn) in turns.enumerated() {
      try ReservedToken.check(turn.text, for: reservedTokens, turn: index)
    }
    for (image, count) in rows.enumerated() where count < 1 {
      throw TextError.invalidImageTokenCount(image: image, tokens: count)
    }

    var parts = turns.map { turn in
      turn.role == .user ? turn.text.utf8.split(placeholder) : [turn.text]
    }
    var placeholders = parts.reduce(0) { $0 + $1.count - 1 }
    if placeholders == 0, !rows.isEmpty,
      let first = turns.firstIndex(where: { $0.role == .user })
    {
      let lines = [String](repeating: "\n", count: rows.count - 1)
      parts[first] = [""] + lines + ["\n" + turns[first].text]
      placeholders = rows.count
    }
    guard placeholders == rows.count else {
      throw TextError.imageCountMismatch(placeholders: placeholders, images: rows.count)
    }

    var remaining = rows[...]
    return zip(turns, parts).map { turn, parts in
      var text = parts[0]
      for part in parts.dropFirst() {
        text += tokens(rows: remaining.removeFirst()) + part
      }
      return ChatTurn(role: turn.role, text: text)
    }
  }

  /// Makes sure that an encoded prompt has a place for each image row.
  ///
  /// - Throws: ``TextError/imageTokenMismatch(expected:found:)``.
  public static func check(_ ids: [Int], contextID: Int, rows: [Int]) throws {
    let expected = rows.reduce(0, +)
    let found = ids.count { $0 == contextID }
    guard found == expected else {
      throw TextError.imageTokenMismatch(expected: expected, found: found)
    }
  }
}

extension String.UTF8View {
  /// The texts between the occurrences of a separator.
  fileprivate func split(_ separator: String) -> [String] {
    let bytes = Array(self)
    return bytes.split(separator: Array(separator.utf8), omittingEmptySubsequences: false)
      .map { String(decoding: $0, as: UTF8.self) }
  }
}
