import Kernels
import Training

extension MicroBatch {
  /// The rows of each sample, as attention takes them.
  var attention: [AttentionSequence] {
    zip(samples, sequences).map { AttentionSequence($1, turns: $0.turns) }
  }
}

extension AttentionSequence {
  /// The rows as angles take them: every turn goes on from the prefix's end. All count as parts of
  /// a prompt as long as the longest turn makes it, since they share the prefix's keys.
  func steps(sequence: UInt64) -> [SequenceRows] {
    let later = laterTurns
    let start = prefix.count
    let length = later.reduce(trunk.count) { max($0, start + $1.count) }
    return [
      SequenceRows(sequence: sequence, position: 0, rows: trunk, promptLength: length)
    ]
      + later.map {
        SequenceRows(sequence: sequence, position: start, rows: $0, promptLength: length)
      }
  }
}
