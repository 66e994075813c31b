/// The samples that a run trains on, with their lengths: what a ``DataCheck`` found usable.
public struct TrainingSet: Sendable {
  public let source: SampleSource
  /// Numbers of the samples in the source, ascending.
  public let indices: [Int]
  /// Tokens of each, cut to the limit.
  public let lengths: [Int]

  public var count: Int { indices.count }

  /// Samples of a step as an ``EpochOrder`` of ``count`` samples gives them, as micro-batches of
  /// numbers in the source.
  public func microBatches(
    _ samples: some Sequence<Int>, _ composer: BatchComposer
  ) -> [[Int]] {
    composer.compose(samples) { lengths[$0] }.map { $0.map { indices[$0] } }
  }

  /// A stream of samples by their numbers in the source.
  public func stream(
    _ indices: [Int], workers: Int = 2, window: Int = 256 << 20
  ) -> SampleStream<TrainingSample> {
    SampleStream(source, indices, workers: workers, window: window)
  }

  /// The same without their pixels: their pictures' headers are read.
  public func outlines(
    _ indices: [Int], workers: Int = 2, window: Int = 16 << 20
  ) -> SampleStream<TrainingSample> {
    SampleStream(outlinesOf: source, indices, workers: workers, window: window)
  }

  /// The pixels alone.
  public func pixels(
    _ indices: [Int], workers: Int = 2, window: Int = 256 << 20
  ) -> SampleStream<SamplePixels> {
    SampleStream(pixelsOf: source, indices, workers: workers, window: window)
  }
}
