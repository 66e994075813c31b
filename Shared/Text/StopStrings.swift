/// Cuts streamed text before the first stop string, holding back only what could still become one.
public struct StopStrings: Sendable {
  /// A stop string and how much of it the text's end matches (Knuth–Morris–Pratt).
  private struct Matcher {
    let bytes: [UInt8]
    /// For each length matched: the longest shorter prefix that also ends there.
    let fallback: [Int]
    var matched = 0

    init(_ text: String) {
      bytes = Array(text.utf8)
      var fallback = [0, 0]
      for index in bytes.indices.dropFirst() {
        var length = fallback[index]
        while length > 0 && bytes[length] != bytes[index] { length = fallback[length] }
        fallback.append(bytes[length] == bytes[index] ? length + 1 : 0)
      }
      self.fallback = fallback
    }

    mutating func advance(_ byte: UInt8) -> Bool {
      while matched > 0 && bytes[matched] != byte { matched = fallback[matched] }
      if bytes[matched] == byte { matched += 1 }
      return matched == bytes.count
    }
  }

  private var matchers: [Matcher]
  private var held: [UInt8] = []
  private var hasStopped = false

  /// Empty strings stop nothing.
  public init(_ strings: [String]) {
    matchers = strings.filter { !$0.isEmpty }.map(Matcher.init)
  }

  /// - Returns: the text that is certain not to belong to a stop string, and whether one was found.
  ///   The stop string and what follows it are dropped. Of several, the one that is complete first
  ///   counts, and of those the longest.
  public mutating func push(_ text: String) -> (emit: String, stopped: Bool) {
    guard !hasStopped else { return ("", true) }
    for byte in text.utf8 {
      held.append(byte)
      var complete = 0
      for index in matchers.indices where matchers[index].advance(byte) {
        complete = max(complete, matchers[index].bytes.count)
      }
      if complete > 0 {
        hasStopped = true
        let emit = String(decoding: held.dropLast(complete), as: UTF8.self)
        held = []
        return (emit, true)
      }
    }
    // A prefix of a stop string starts with a character, so the cut never splits one.
    let open = matchers.map(\.matched).max() ?? 0
    let emit = String(decoding: held.dropLast(open), as: UTF8.self)
    held = Array(held.suffix(open))
    return (emit, false)
  }

  /// What was held back and became no stop string.
  public mutating func finish() -> String {
    defer { held = [] }
    return String(decoding: held, as: UTF8.self)
  }
}
