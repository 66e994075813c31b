import InternVL
import Training
import TrainingData

/// A run's steps out of its data: samples in the order of the seed and the epoch, read ahead.
///
/// A step is planned from texts and the sizes of pictures alone; pictures are decoded a window
/// ahead of the micro-batch that is asked for.
public actor DataSteps: StepSource {
  public nonisolated let length: TrainingLength
  public nonisolated let digest: String
  public nonisolated let skipped: Int
  public nonisolated let objectives: TrainingObjectives
  /// nil: the answers alone, as they are.
  private let parts: RunObjectives?
  private let configuration: TrainingConfiguration
  private let set: TrainingSet
  private let order: EpochOrder
  private let composer: BatchComposer
  private let window: Int
  private var reading: Reading?
  private var permutation: (epoch: Int, order: [Int])?

  /// What is being read ahead.
  private struct Reading {
    let outlines: SampleStream<TrainingSample>
    let pixels: PixelReader
    /// The step that comes next out of it, the one that does not any more, and the samples before
    /// the first.
    var next: Int
    let end: Int
    var position = 0
  }

  /// Looks at all data before the first step.
  ///
  /// - Parameters:
  ///   - decodes: whether every picture is decoded, too.
  ///   - flaws: told of samples that are left out.
  /// - Throws: `TrainingDataError`: among others, of flawed samples, unless they are skipped.
  public static func check(
    _ configuration: TrainingConfiguration, decodes: Bool = true,
    progress: (@Sendable (Int, Int) -> Void)? = nil
  ) async throws -> (steps: DataSteps, report: DataReport) {
    var options = DataOptions(
      maxSequenceLength: configuration.maxSequenceLength, template: configuration.template)
    options.separation = TurnSeparation(
      share: configuration.separateTurns, seed: configuration.seed)
    if configuration.readsClasses {
      options.classes = try PictureClasses(
        path: configuration.classes ?? PictureClasses.path(beside: configuration.meta))
    }
    let source = try SampleSource(
      metaPath: configuration.meta, modelFolder: configuration.model, options: options)
    let report = try await DataCheck(
      source, depth: decodes ? .pictures : .headers,
      workers: max(1, configuration.dataloaderWorkers)
    ).run(progress: progress)
    return (try DataSteps(configuration, report), report)
  }

  /// - Parameter window: bytes of pixels that are decoded ahead.
  public init(
    _ configuration: TrainingConfiguration, _ report: DataReport, window: Int = 256 << 20
  ) throws {
    self.configuration = configuration
    self.window = window
    let set = try report.trainingSet(skippingBad: configuration.skipBad)
    self.set = set
    skipped = report.fatalFlaws.count
    length = TrainingLength(samples: set.count, configuration)
    order = EpochOrder(length, seed: configuration.seed)
    composer = BatchComposer(configuration, maxTokens: set.source.encoder.maxSequenceLength)
    digest = try report.digest()
    parts =
      configuration.readsClasses || configuration.answerLossWeight != 1
      ? try RunObjectives(
        configuration, set.source.classList, set.source.configuration,
        set.source.encoder.tokenizer) : nil
    objectives = parts?.training ?? TrainingObjectives()
  }

  public nonisolated func position(after done: Int) -> (epoch: Int, samples: Int) {
    let step = done % length.stepsPerEpoch
    return (
      done / length.stepsPerEpoch, min(step * configuration.globalBatchSize, length.samples)
    )
  }

  public func batch(after done: Int) async throws -> StepBatch {
    // Whatever fails, the next one begins anew.
    var reading = self.reading.flatMap { $0.next == done ? $0 : nil } ?? read(from: done)
    self.reading = nil
    var samples: [[TrainingSample]] = []
    var starts: [Int] = []
    for group in groups(done) {
      starts.append(reading.position)
      var part: [TrainingSample] = []
      for _ in group {
        guard let sample = try await reading.outlines.next() else { throw CancellationError() }
        part.append(sample)
      }
      reading.position += group.count
      samples.append(part)
    }
    reading.next = done + 1
    if reading.next < reading.end {
      self.reading = reading
    } else if reading.next < length.totalSteps {
      // The next epoch is read while this one's last step is computed.
      self.reading = read(from: reading.next)
    }
    var batch = try StepBatch(
      samples, weighting: configuration.lossWeighting,
      paddedTo: configuration.padToMax ? set.source.encoder.maxSequenceLength : nil
    ) { [pixels = reading.pixels, samples, starts] index in
      try await pixels.pixels(at: starts[index], samples[index])
    }
    if let parts {
      batch.objectives = ObjectivePlan(
        parts, samples, after: done, of: length.totalSteps, into: &batch.plan)
    }
    return batch
  }

  var isReadingAhead: Bool { reading != nil }

  /// Begins to read, to the end of the epoch.
  private func read(from done: Int) -> Reading {
    let epochEnd = (done / length.stepsPerEpoch + 1) * length.stepsPerEpoch
    let end = min(length.totalSteps, max(epochEnd, done + 1))
    let indices = (done..<end).flatMap { groups($0).joined() }
    let workers = max(1, configuration.dataloaderWorkers)
    return Reading(
      outlines: set.outlines(indices, workers: workers),
      pixels: PixelReader(set.pixels(indices, workers: workers, window: window)), next: done,
      end: end)
  }

  /// The samples of the step after `done` steps, by micro-batch, as numbers in the source.
  private func groups(_ done: Int) -> [[Int]] {
    let epoch = done / length.stepsPerEpoch
    if permutation?.epoch != epoch {
      permutation = (epoch, order.permutation(epoch: epoch))
    }
    let samples = order.samples(
      permutation?.order ?? [], step: done % length.stepsPerEpoch)
    return set.microBatches(samples, composer)
  }
}
