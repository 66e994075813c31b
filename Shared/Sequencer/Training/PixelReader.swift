import Tensors
import TrainingData

/// The pixels of a run's steps, micro-batch after micro-batch, out of a stream that reads ahead.
actor PixelReader {
  private let stream: SampleStream<SamplePixels>
  /// Samples that have left the stream.
  private var position = 0

  init(_ stream: SampleStream<SamplePixels>) { self.stream = stream }

  /// Pixels [tiles, 3, H, W] of samples together. What lies before them is passed over.
  ///
  /// - Parameters:
  ///   - start: the first one's place in the stream.
  ///   - samples: what is known of them, in order.
  /// - Throws: `TrainingDataError` of a sample that cannot be read, or that is another than when
  ///   the step was planned; the stream is over then.
  func pixels(at start: Int, _ samples: [TrainingSample]) async throws -> Tensor {
    precondition(start >= position, "pixels are asked for in order")
    while position < start { _ = try await next() }
    var tensors: [Tensor] = []
    for sample in samples {
      let pixels = try await next()
      guard pixels.key == sample.key, pixels.tiles == sample.tiles else {
        throw TrainingDataError.sample(
          SampleFlaw(
            .changedPicture, sample.source,
            "its pictures make \(pixels.tiles) tiles now, and made \(sample.tiles) before; leave "
              + "data alone while it is in use"))
      }
      if let tensor = pixels.tensor { tensors.append(tensor) }
    }
    guard let whole = StepBatch.joined(tensors) else {
      preconditionFailure("only micro-batches with pictures are asked for")
    }
    return whole
  }

  private func next() async throws -> SamplePixels {
    guard let pixels = try await stream.next() else { throw CancellationError() }
    position += 1
    return pixels
  }
}
