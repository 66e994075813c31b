/// What the patches of a micro-batch's pictures show, in one group of classes.
public struct PatchTargets: Sendable, Equatable {
  /// The group's place in the list of groups.
  public var group: Int
  /// One a patch, tile after tile, rows from top to bottom, columns from left to right; −1: nothing
  /// is said.
  public var classes: [Int32]
  /// What a patch's loss counts in the step's, times the weight of its class.
  public var scale: Double

  public init(group: Int, classes: [Int32], scale: Double) {
    self.group = group
    self.classes = classes
    self.scale = scale
  }
}

/// Which tokens image rows of a micro-batch should be near to.
public struct NamingTargets: Sendable, Equatable {
  /// Of the micro-batch's image rows, those with a target, ascending.
  public var rows: [Int32] = []
  /// How many pairs of ``tokens`` and ``shares`` each has; its shares sum to 1.
  public var counts: [Int32] = []
  public var tokens: [Int32] = []
  public var shares: [Double] = []
  /// What a row's loss counts in the step's.
  public var scale = 0.0

  public init() {}

  public mutating func append(row: Int, _ shares: [(token: Int32, share: Double)]) {
    rows.append(Int32(clamping: row))
    counts.append(Int32(clamping: shares.count))
    for (token, share) in shares {
      tokens.append(token)
      self.shares.append(share)
    }
  }
}

/// What came of the patches of one group, or of the naming of image rows, in one micro-batch.
public struct ObjectiveLoss: Sendable, Equatable {
  public var microBatch: Int
  /// Of patch classes; nil: the naming of image rows.
  public var group: Int?
  /// Over the rows with a target: of patches each times its class's weight.
  public var sum: Double
  /// Rows with a target; of patches those above class 0.
  public var rows: Int
  /// Of these, those whose greatest is the target's.
  public var right: Int

  public init(microBatch: Int, group: Int?, sum: Double, rows: Int, right: Int) {
    self.microBatch = microBatch
    self.group = group
    self.sum = sum
    self.rows = rows
    self.right = right
  }
}
