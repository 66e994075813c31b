/// One sequence's share of a language step: a chunk of its prompt, or the token to decode from.
public struct SequenceRows: Sendable, Hashable {
  /// Whose cache the rows read and extend.
  public var sequence: UInt64
  /// Position of the first row: the number of tokens that come before it. What the cache holds
  /// from there on is forgotten.
  public var position: Int
  /// Rows of the step that belong to the sequence, in order of position.
  public var rows: Range<Int>
  /// Length of the whole prompt. Only dynamic rotary scaling looks at it.
  public var promptLength: Int

  public init(sequence: UInt64, position: Int, rows: Range<Int>, promptLength: Int = 0) {
    self.sequence = sequence
    self.position = position
    self.rows = rows
    self.promptLength = promptLength
  }

  /// The number of tokens in the sequence after the step.
  var end: Int { position + rows.count }
}

extension [SequenceRows] {
  /// Cuts a step into steps of at most `limit` rows, in order. A sequence that crosses a cut
  /// goes on in the next step.
  ///
  /// - Returns: The rows of the whole step that each part takes, and the part's sequences, with
  ///   rows counted from the part's first.
  func chunked(limit: Int) -> [(rows: Range<Int>, steps: [SequenceRows])] {
    var chunks: [(rows: Range<Int>, steps: [SequenceRows])] = []
    var start = first?.rows.lowerBound ?? 0
    var steps: [SequenceRows] = []
    for var rest in self {
      while !rest.rows.isEmpty {
        let taken = Swift.min(rest.rows.count, start + limit - rest.rows.lowerBound)
        if taken == 0 {
          chunks.append((start..<rest.rows.lowerBound, steps))
          start = rest.rows.lowerBound
          steps = []
          continue
        }
        let cut = rest.rows.lowerBound + taken
        var part = rest
        part.rows = rest.rows.lowerBound - start..<cut - start
        steps.append(part)
        rest.position += taken
        rest.rows = cut..<rest.rows.upperBound
      }
    }
    if let last { chunks.append((start..<last.rows.upperBound, steps)) }
    return chunks
  }
}
