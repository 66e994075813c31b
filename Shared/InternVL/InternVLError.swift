/// Ways in which the model, or a slice of it, cannot do what it was asked.
public enum InternVLError: Error, Equatable, CustomStringConvertible {
  /// A stage was given layers that the model does not have, or none.
  case layersOutsideModel(part: String, layers: Range<Int>, available: Int)
  /// More stages, or fewer than one, than the layers can be split into.
  case unevenSplit(layers: Int, stages: Int)
  /// The stages of a part leave layers out, hold some twice, or are out of order.
  case stagesDoNotCover(part: String, stages: [Range<Int>], available: Int)
  /// A stage was asked for something that only the first or the last stage of its part can do.
  case wrongStage(what: String, layers: Range<Int>, needed: String)
  /// The rows of a step do not follow one another from the first to the last.
  case rowsNotCovered(sequence: UInt64, rows: Range<Int>, expectedStart: Int, total: Int)
  /// One step has two parts for the same sequence.
  case sequenceTwice(sequence: UInt64)
  /// A step begins behind the end of what the cache holds.
  case positionGap(sequence: UInt64, position: Int, cached: Int)
  /// A step reaches past the last position the model knows.
  case beyondContext(sequence: UInt64, end: Int, context: Int)
  /// The cache has too few free blocks left for a sequence to hold `tokens` in all.
  case cacheFull(sequence: UInt64, tokens: Int, freeTokens: Int, capacity: Int)
  /// A cache of a negative size, or of more bytes than any machine can address.
  case cacheBudget(tokens: Int, maximum: Int)
  /// Image rows that would be written outside the rows of a step.
  case imageRowsOutsideStep(row: Int, count: Int, step: Int)
  /// A prompt has another number of placeholders than its pictures have rows.
  case placeholderMismatch(placeholders: Int, imageRows: Int)
  /// A prompt without tokens.
  case emptyPrompt
  /// A backward pass of a micro-batch that had no forward pass.
  case unknownMicroBatch(index: Int)
  /// A micro-batch came without the ids or labels of its rows.
  case tokensMissing(what: String, found: Int, rows: Int)
  /// A tensor that is embedding table and head at once is to be trained by two slices.
  case tiedTensorSplit(layers: Range<Int>)
  /// A micro-batch came with what its pictures show, and that is not about these pictures.
  case targetsDoNotFit(what: String, found: Int, expected: Int)

  public var description: String {
    switch self {
    case .layersOutsideModel(let part, let layers, let available):
      "layers \(InternVLError.text(layers)) are asked for, but the \(part) uses "
        + "\(available) layers, 0–\(available - 1); fix `--layers` in the mesh file"
    case .unevenSplit(let layers, let stages):
      "\(layers) layers cannot be split into \(stages) stages; give 1–\(layers) stages"
    case .stagesDoNotCover(let part, let stages, let available):
      "the stages of the \(part) hold layers \(stages.map(InternVLError.text)), which is not "
        + "each of the layers 0–\(available - 1) once and in order; fix `--layers` in the mesh file"
    case .wrongStage(let what, let layers, let needed):
      "the stage with layers \(InternVLError.text(layers)) cannot \(what); "
        + "only the \(needed) stage can"
    case .rowsNotCovered(let sequence, let rows, let expectedStart, let total):
      "sequence \(sequence) has rows \(rows.lowerBound)..<\(rows.upperBound) of a step of "
        + "\(total) rows, expected to start at row \(expectedStart); the sequences of a step "
        + "must follow one another and cover all of its rows"
    case .sequenceTwice(let sequence):
      "sequence \(sequence) has two parts in one step; send them as one, or in two steps"
    case .positionGap(let sequence, let position, let cached):
      "sequence \(sequence) has \(cached) tokens in the cache, but a step begins at position "
        + "\(position); send the tokens in between first"
    case .beyondContext(let sequence, let end, let context):
      "sequence \(sequence) would reach \(end) tokens, but the model knows \(context) positions; "
        + "shorten the prompt or the answer"
    case .cacheFull(let sequence, let tokens, let freeTokens, let capacity):
      "sequence \(sequence) needs room for \(tokens) tokens in the cache, but only "
        + "\(freeTokens) of \(capacity) are free; wait until another sequence ends, or raise "
        + "`--cache-tokens`"
    case .cacheBudget(let tokens, let maximum):
      "a cache of \(tokens) tokens is asked for, possible are 0–\(maximum); "
        + "fix `--cache-tokens`"
    case .imageRowsOutsideStep(let row, let count, let step):
      "\(count) image rows are to be written from row \(row) on, but the step has \(step) rows"
    case .placeholderMismatch(let placeholders, let imageRows):
      "the prompt has \(placeholders) image placeholders, but the pictures give \(imageRows) "
        + "rows; every picture needs one placeholder for each of its rows"
    case .emptyPrompt:
      "the prompt has no tokens; send at least one"
    case .unknownMicroBatch(let index):
      "micro-batch \(index) has no activations here; its forward pass has to come first"
    case .tokensMissing(let what, let found, let rows):
      "a micro-batch of \(rows) rows came with \(found) \(what); feed this stage one for each row"
    case .tiedTensorSplit(let layers):
      "embedding table and head are one tensor in this model, so that one stage has to train all "
        + "layers, not \(InternVLError.text(layers)); use one language stage, or freeze the "
        + "language model"
    case .targetsDoNotFit(let what, let found, let expected):
      "\(what): \(found), and there are \(expected) of them; the gateway and this stage do not "
        + "mean the same pictures or classes"
    }
  }

  private static func text(_ layers: Range<Int>) -> String {
    switch layers.count {
    case 0: "(none, at \(layers.lowerBound))"
    case 1: "\(layers.lowerBound)"
    default: "\(layers.lowerBound)–\(layers.upperBound - 1)"
    }
  }
}
