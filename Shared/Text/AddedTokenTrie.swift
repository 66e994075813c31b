/// Finds added tokens in a text: leftmost first, and of those that start there the longest.
///
/// Works on UTF-8: no character's bytes occur inside another's, so matches of bytes are matches of
/// characters.
struct AddedTokenTrie: Sendable {
  private struct Node {
    var next: [UInt8: Int] = [:]
    var isEnd = false
  }

  private var nodes = [Node()]

  init(_ tokens: some Sequence<[UInt8]>) {
    for token in tokens where !token.isEmpty {
      var node = 0
      for byte in token {
        if let child = nodes[node].next[byte] {
          node = child
        } else {
          nodes.append(Node())
          nodes[node].next[byte] = nodes.count - 1
          node = nodes.count - 1
        }
      }
      nodes[node].isEnd = true
    }
  }

  /// The text cut at the borders of the tokens found in it; no piece is empty.
  func split(_ text: [UInt8]) -> [ArraySlice<UInt8>] {
    var pieces: [ArraySlice<UInt8>] = []
    var plainStart = 0
    var position = 0
    while position < text.count {
      guard let end = longestMatch(in: text, at: position) else {
        position += 1
        continue
      }
      if plainStart < position { pieces.append(text[plainStart..<position]) }
      pieces.append(text[position..<end])
      position = end
      plainStart = end
    }
    if plainStart < text.count { pieces.append(text[plainStart...]) }
    return pieces
  }

  private func longestMatch(in text: [UInt8], at start: Int) -> Int? {
    var node = 0
    var longest: Int?
    for position in start..<text.count {
      guard let next = nodes[node].next[text[position]] else { break }
      node = next
      if nodes[node].isEnd { longest = position + 1 }
    }
    return longest
  }
}
