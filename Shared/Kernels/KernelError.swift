/// Ways in which an operation cannot be carried out, besides wrong shapes.
public enum KernelError: Error, Equatable, CustomStringConvertible {
  /// A token id that the embedding table has no row for.
  case tokenOutOfRange(id: Int, rows: Int)
  /// A row with a target that is not among those of the batch.
  case targetOutOfRange(row: Int, rows: Int)
  /// A position that the tables of angles have no row for.
  case positionOutOfRange(position: Int, rows: Int)
  /// A sequence's rows are not among those of the batch.
  case spanOutOfRange(rows: Range<Int>, batch: Int)
  /// Two sequences of a batch claim the same row; `end` is where the first one ends.
  case sequencesOverlap(rows: Range<Int>, end: Int)
  /// A sequence of so many rows has turns without a row, or of more rows than there are.
  case turnsOutOfRange(turns: [Int], rows: Int)
  /// A sequence's cache blocks do not reach its last position.
  case cacheTooShort(positions: Int, needed: Int)
  /// A device name other than `cpu`, `cpu:bf16` and `cuda:N`.
  case unknownDevice(String)
  /// A device kind that this build has no code for, or this machine does not have.
  case deviceUnavailable(String, reason: String)
  /// A weight [N, K] has a value at (row, column) that no quantised block can hold.
  case notQuantisable(row: Int, column: Int, value: Float)
  /// The system did not start the threads; `code` is its errno.
  case threadsUnavailable(count: Int, code: Int32)

  public var description: String {
    switch self {
    case .tokenOutOfRange(let id, let rows):
      "token id \(id) is outside the embedding table of \(rows) rows; "
        + "the tokenizer and the model do not belong together"
    case .targetOutOfRange(let row, let rows):
      "row \(row) has a target, and the batch has \(rows) rows; give targets of its rows alone"
    case .positionOutOfRange(let position, let rows):
      "position \(position) is outside the rotary tables of \(rows) positions; "
        + "shorten the sequence or make the tables longer"
    case .spanOutOfRange(let rows, let batch):
      "a sequence claims rows \(rows) of a batch of \(batch) rows; "
        + "spans must lie inside the batch and start at position 0 or later"
    case .sequencesOverlap(let rows, let end):
      "a sequence claims rows \(rows) of a batch, but another one reaches to row \(end); "
        + "a row belongs to one sequence"
    case .turnsOutOfRange(let turns, let rows):
      "a sequence of \(rows) rows has turns of \(turns); a turn has a row at least, and all "
        + "together no more than the sequence"
    case .cacheTooShort(let positions, let needed):
      "the cache blocks of a sequence hold \(positions) positions, \(needed) are needed; "
        + "give the sequence another block before the call"
    case .unknownDevice(let name):
      "\(name) is no device; give cpu, cpu:bf16 or cuda:N"
    case .deviceUnavailable(let name, let reason):
      "device \(name) cannot be used: \(reason); give --device cpu"
    case .notQuantisable(let row, let column, let value):
      "the weight at row \(row), column \(column) is \(value), which no quantised block can hold; "
        + "the checkpoint is damaged, or the layer must stay as it is"
    case .threadsUnavailable(let count, let code):
      "the system refused to start \(count) threads (errno \(code)); give fewer with --threads"
    }
  }
}
