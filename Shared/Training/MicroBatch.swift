/// What a slice of the model has to know of one micro-batch besides its tensors.
///
/// Samples lie one after another without padding; every sample attends to itself alone, and where
/// it has turns, each of them to itself and what comes before the first.
public struct MicroBatch: Sendable, Equatable {
  public struct Sample: Sendable, Equatable {
    /// Names the sample in the data: what drop path and dropout draw by.
    public var key: UInt64
    public var tokens: Int
    public var tiles: Int
    /// Tokens of each of the turns that are hidden from each other, the sample's last ones;
    /// positions go on from the first turn's beginning in each. Empty: one whole.
    public var turns: [Int]

    public init(key: UInt64, tokens: Int, tiles: Int, turns: [Int] = []) {
      self.key = key
      self.tokens = tokens
      self.tiles = tiles
      self.turns = turns
    }

    /// Whether every turn has a token, and something comes before the first.
    public var fitsTurns: Bool {
      var free = tokens
      for turn in turns {
        guard turn > 0, turn < free else { return false }
        free -= turn
      }
      return true
    }
  }

  public var samples: [Sample]
  /// Ids of all samples' tokens: for the first language slice, empty elsewhere.
  public var ids: [Int32]
  /// For each token the one it should predict, which is the label of the next, or −100: for the
  /// last language slice, empty elsewhere.
  public var labels: [Int32]
  /// What a row's loss counts in the step's loss.
  public var lossScale: Double
  /// What patches show, group by group: for the last vision slice, empty elsewhere.
  public var patchTargets: [PatchTargets] = []
  /// What image rows are near to: for the first language slice, nil elsewhere.
  public var namingTargets: NamingTargets?

  public init(
    samples: [Sample], ids: [Int32] = [], labels: [Int32] = [], lossScale: Double = 0
  ) {
    self.samples = samples
    self.ids = ids
    self.labels = labels
    self.lossScale = lossScale
  }

  /// Rows of text, all samples together.
  public var rows: Int { samples.reduce(0) { $0 + $1.tokens } }
  /// Tiles of pictures, all samples together; 0: the vision stages skip the micro-batch.
  public var tiles: Int { samples.reduce(0) { $0 + $1.tiles } }
  /// The rows of each sample.
  public var sequences: [Range<Int>] {
    var start = 0
    return samples.map { sample in
      defer { start += sample.tokens }
      return start..<start + sample.tokens
    }
  }
}
