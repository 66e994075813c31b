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
  /// Normalized pixels [tiles, 3, H, W] of all pictures in order; nil: text only.
  public var pixels: Tensor?
  public var source: Source

  public init(
    key: UInt64, ids: [Int32], labels: [Int32], pixels: Tensor?, source: Source
  ) {
    self.key = key
    self.ids = ids
    self.labels = labels
    self.pixels = pixels
    self.source = source
  }
}
