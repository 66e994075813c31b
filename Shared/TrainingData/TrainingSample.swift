import Tensors

/// One sample, ready for the model.
public struct TrainingSample: Sendable {
  /// Where the sample was read.
  public struct Source: Sendable, Equatable {
    public var dataset: String
    public var file: String
    /// Counted from 1.
    public var line: Int

    public init(dataset: String, file: String, line: Int) {
      self.dataset = dataset
      self.file = file
      self.line = line
    }
  }

  /// The sample's number in the whole of the data, which does not depend on its order.
  public var key: UInt64
  public var ids: [Int32]
  /// For each token itself where it is learnt, else −100; not shifted.
  public var labels: [Int32]
  /// Tokens of each of the turns at the end that are hidden from each other; empty: one whole.
  public var turns: [Int] = []
  /// Tiles of all pictures together; 0: text only.
  public var tiles: Int
  /// Normalized pixels [tiles, 3, H, W] of all pictures in order; nil: text only, or not decoded.
  public var pixels: Tensor?
  /// What its pictures show; nil: nothing is said, or nobody asks.
  public var classes: SampleClasses?
  public var source: Source

  public init(
    key: UInt64, ids: [Int32], labels: [Int32], pixels: Tensor?, source: Source
  ) {
    self.key = key
    self.ids = ids
    self.labels = labels
    tiles = pixels?.shape[0] ?? 0
    self.pixels = pixels
    self.source = source
  }

  /// A sample whose pictures are not decoded.
  public init(key: UInt64, ids: [Int32], labels: [Int32], tiles: Int, source: Source) {
    self.key = key
    self.ids = ids
    self.labels = labels
    self.tiles = tiles
    self.source = source
  }
}

/// What a sample's pictures are to the model.
public struct SamplePixels: Sendable {
  /// The sample's.
  public var key: UInt64
  /// Normalized pixels [tiles, 3, H, W] of all pictures in order; nil: text only.
  public var tensor: Tensor?
  public var source: TrainingSample.Source

  public var tiles: Int { tensor?.shape[0] ?? 0 }
}
