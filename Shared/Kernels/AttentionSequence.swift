/// Rows of a batch that attend to one another: those of one sequence, or of several that begin
/// alike, whose beginning is there once.
///
/// `rows` are the shared beginning, then the turns, one behind the other. The beginning's rows see
/// the beginning up to themselves; a turn's rows see the whole beginning, and their turn up to
/// themselves. Without turns, or with one, that is a sequence whose rows see all before them.
public struct AttentionSequence: Sendable, Hashable {
  public var rows: Range<Int>
  /// Rows of each turn, together the last of `rows`.
  public var turns: [Int]

  public init(_ rows: Range<Int>, turns: [Int] = []) {
    self.rows = rows
    self.turns = turns
  }

  /// Rows that see all before them: a sequence as it begins, up to the end of its first turn.
  public var trunk: Range<Int> {
    rows.lowerBound..<rows.upperBound - turns.dropFirst().reduce(0, +)
  }

  /// Rows that all turns see.
  public var prefix: Range<Int> { rows.lowerBound..<trunk.upperBound - (turns.first ?? 0) }

  /// The rows of every turn but the first, which goes on where the beginning ends.
  public var laterTurns: [Range<Int>] {
    var start = trunk.upperBound
    return turns.dropFirst().map { count in
      defer { start += count }
      return start..<start + count
    }
  }
}
