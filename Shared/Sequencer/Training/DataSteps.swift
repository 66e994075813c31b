import Checkpoint
import Training
import TrainingData

/// A run's steps out of its data: samples in the order of the seed and the epoch, read ahead.
public actor DataSteps: StepSource {
  public nonisolated let length: TrainingLength
  public nonisolated let digest: String
  public nonisolated let skipped: Int
  private let configuration: TrainingConfiguration
  private let set: TrainingSet
  private let order: EpochOrder
  private let composer: BatchComposer
  /// What is being read ahead, and the step that comes next out of it.
  private var stream: SampleStream?
  private var next = -1
  private var permutation: (epoch: Int, order: [Int])?

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
    let source = try SampleSource(
      metaPath: configuration.meta, modelFolder: configuration.model,
      options: DataOptions(
        maxSequenceLength: configuration.maxSequenceLength, template: configuration.template))
    let report = try await DataCheck(
      source, depth: decodes ? .pictures : .headers,
      workers: max(1, configuration.dataloaderWorkers)
    ).run(progress: progress)
    return (try DataSteps(configuration, report), report)
  }

  public init(_ configuration: TrainingConfiguration, _ report: DataReport) throws {
    self.configuration = configuration
    let set = try report.trainingSet(skippingBad: configuration.skipBad)
    self.set = set
    skipped = report.fatalFlaws.count
    length = TrainingLength(samples: set.count, configuration)
    order = EpochOrder(
      count: set.count, globalBatchSize: configuration.globalBatchSize, seed: configuration.seed)
    composer = BatchComposer(
      configuration.pack
        ? .packed(maxTokens: configuration.maxSequenceLength)
        : configuration.groupByLength
          ? .groupedByLength(configuration.microBatchSize)
          : .samples(configuration.microBatchSize))
    var text = "\(configuration.maxSequenceLength)"
    for (index, tokens) in zip(set.indices, set.lengths) { text += " \(index):\(tokens)" }
    for dataset in set.source.datasets { text += " \(dataset.meta.name) \(dataset.indices)" }
    digest = Digest.sha256(Array(text.utf8))
  }

  public nonisolated func position(after done: Int) -> (epoch: Int, samples: Int) {
    let step = done % length.stepsPerEpoch
    return (
      done / length.stepsPerEpoch, min(step * configuration.globalBatchSize, length.samples)
    )
  }

  public func batch(after done: Int) async throws -> StepBatch {
    let groups = groups(done)
    if stream == nil || next != done {
      // To the end of the epoch, and on into the next one.
      let epochEnd = (done / length.stepsPerEpoch + 1) * length.stepsPerEpoch
      let end = min(length.totalSteps, max(epochEnd, done + 1))
      let indices = (done..<end).flatMap { self.groups($0).joined() }
      stream = set.stream(indices, workers: max(1, configuration.dataloaderWorkers))
      streamEnd = end
    }
    guard let stream else { preconditionFailure("a stream was just made") }
    var samples: [[TrainingSample]] = []
    do {
      for group in groups {
        var part: [TrainingSample] = []
        for _ in group {
          guard let sample = try await stream.next() else { throw CancellationError() }
          part.append(sample)
        }
        samples.append(part)
      }
    } catch {
      self.stream = nil
      throw error
    }
    next = done + 1
    if next == streamEnd { self.stream = nil }
    return try StepBatch(
      samples, weighting: configuration.lossWeighting,
      paddedTo: configuration.padToMax ? configuration.maxSequenceLength : nil)
  }

  private var streamEnd = 0

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
