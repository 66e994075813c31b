/// The micro-batches of one step, with labels shifted and losses weighted.
public struct StepPlan: Sendable, Equatable {
  /// A sample as the data has it.
  public struct Sample: Sendable, Equatable {
    public var key: UInt64
    public var ids: [Int32]
    /// For each token itself where it is learnt, else −100; not shifted.
    public var labels: [Int32]
    public var tiles: Int
    /// Tokens of each of the turns at its end that are hidden from each other; empty: one whole.
    public var turns: [Int]

    public init(
      key: UInt64, ids: [Int32], labels: [Int32], tiles: Int, turns: [Int] = []
    ) {
      self.key = key
      self.ids = ids
      self.labels = labels
      self.tiles = tiles
      self.turns = turns
    }

    /// For each token the label of the next; −100 for the last, of every turn and of what comes
    /// before the first.
    var shiftedLabels: [Int32] {
      var shifted = labels.dropFirst() + (labels.isEmpty ? [] : [StepPlan.ignored])
      var end = shifted.endIndex
      for turn in turns.reversed() {
        end -= turn
        shifted[end - 1] = StepPlan.ignored
      }
      return Array(shifted)
    }
  }

  /// A label that is not learnt.
  public static let ignored: Int32 = -100

  public internal(set) var microBatches: [MicroBatch]
  /// Rows of each micro-batch whose loss counts.
  public internal(set) var labelledRows: [Int]
  /// What a row of each counts in the loss of the answers.
  var answerScales: [Double]

  /// Row t of a sample predicts the label of token t + 1; the last predicts nothing, nor do the
  /// last of a turn and the last before the first turn. What a sample is padded with lies behind
  /// its last turn, as if it belonged to it.
  ///
  /// Weighted by tokens, every labelled row of the step counts 1/N, N being their number. Weighted
  /// by micro-batch, a labelled row of micro-batch i counts 1/(Nᵢ·M): M all micro-batches, one
  /// without labels adding a loss of 0 where the reference would add NaN.
  ///
  /// - Parameters:
  ///   - batch: the samples of each micro-batch.
  ///   - paddedTo: fills every sample with id 0 up to so many tokens; nil: nothing is padded.
  /// - Throws: ``TrainingError/labelsDoNotFit(key:ids:labels:)``,
  ///   ``TrainingError/sampleTooLong(key:tokens:limit:)`` of a sample longer than `paddedTo`.
  public init(_ batch: [[Sample]], weighting: LossWeighting, paddedTo: Int? = nil) throws {
    var microBatches: [MicroBatch] = []
    var rows: [Int] = []
    for samples in batch {
      var microBatch = MicroBatch(samples: [])
      for sample in samples {
        guard sample.labels.count == sample.ids.count else {
          throw TrainingError.labelsDoNotFit(
            key: sample.key, ids: sample.ids.count, labels: sample.labels.count)
        }
        var length = sample.ids.count
        microBatch.ids += sample.ids
        microBatch.labels += sample.shiftedLabels
        var turns = sample.turns
        if let paddedTo {
          guard length <= paddedTo else {
            throw TrainingError.sampleTooLong(key: sample.key, tokens: length, limit: paddedTo)
          }
          microBatch.ids += Array(repeating: 0, count: paddedTo - length)
          microBatch.labels += Array(repeating: StepPlan.ignored, count: paddedTo - length)
          if let last = turns.indices.last { turns[last] += paddedTo - length }
          length = paddedTo
        }
        microBatch.samples.append(
          MicroBatch.Sample(key: sample.key, tokens: length, tiles: sample.tiles, turns: turns))
      }
      rows.append(microBatch.labels.reduce(0) { $0 + ($1 == StepPlan.ignored ? 0 : 1) })
      microBatches.append(microBatch)
    }
    let all = rows.reduce(0, +)
    for index in microBatches.indices where rows[index] > 0 {
      switch weighting {
      case .tokens:
        microBatches[index].lossScale = 1 / Double(all)
      case .microBatch:
        microBatches[index].lossScale = 1 / (Double(rows[index]) * Double(microBatches.count))
      }
    }
    self.microBatches = microBatches
    labelledRows = rows
    answerScales = microBatches.map(\.lossScale)
  }

  public var tokens: Int { microBatches.reduce(0) { $0 + $1.rows } }
  public var tiles: Int { microBatches.reduce(0) { $0 + $1.tiles } }
  public var samples: Int { microBatches.reduce(0) { $0 + $1.samples.count } }
  public var labelledTokens: Int { labelledRows.reduce(0, +) }

  /// Micro-batches that skip vision and projector.
  public var withoutPictures: Set<Int> {
    Set(microBatches.indices.filter { microBatches[$0].tiles == 0 })
  }

  /// The answers' loss, from each micro-batch's sum over its labelled rows, added up in their order.
  public func loss(sums: [Double]) -> Double {
    zip(answerScales, sums).reduce(0) { $0 + $1.1 * $1.0 }
  }
}
