import Training

/// What a ``DataCheck`` found.
public struct DataReport: Sendable {
  public let source: SampleSource
  /// Of every kept line of all data sets, in their order.
  public let figures: [SampleFigures]
  /// Flawed samples in the order of their lines, each with the first thing found.
  public let flaws: [SampleFlaw]

  public init(source: SampleSource, figures: [SampleFigures], flaws: [SampleFlaw]) {
    self.source = source
    self.figures = figures
    self.flaws = flaws
  }

  /// Flaws that keep a sample out of training.
  public var fatalFlaws: [SampleFlaw] { flaws.filter(\.isFatal) }

  /// What is odd about the meta file, though it can be used.
  public var notes: [String] {
    source.datasets.flatMap { dataset -> [String] in
      var notes: [String] = []
      let name = Clip.text(dataset.meta.name)
      if let length = dataset.meta.length, length != dataset.lines.count {
        notes.append(
          "\(name): length is \(length), but \(Clip.path(dataset.lines.path)) has "
            + "\(dataset.lines.count) lines")
      }
      if dataset.meta.dataAugment {
        notes.append("\(name): data_augment is not done; pictures are used as they are")
      }
      if dataset.meta.maxDynamicPatch ?? 1 > 1, !source.pictures.cutsTiles {
        notes.append(
          "\(name): max_dynamic_patch counts for nothing: this model takes pictures whole")
      }
      if dataset.kept == 0 { notes.append("\(name): none of its samples counts") }
      return notes
    }
  }

  /// The samples to train on.
  ///
  /// - Parameter skippingBad: leaves out what cannot be used; ``fatalFlaws`` says what that is.
  /// - Throws: ``TrainingDataError/flawedSamples(count:total:first:)``,
  ///   ``TrainingDataError/noSamples(path:)``.
  public func trainingSet(skippingBad: Bool) throws -> TrainingSet {
    let fatal = fatalFlaws
    guard fatal.isEmpty || skippingBad else {
      throw TrainingDataError.flawedSamples(
        count: fatal.count, total: source.lineCount, first: Array(fatal.prefix(20)))
    }
    var indices: [Int] = []
    var lengths: [Int] = []
    for dataset in source.datasets {
      for index in dataset.indices {
        let line = (index - dataset.indices.lowerBound) % dataset.kept
        let figures = figures[dataset.firstLine + line]
        guard figures.isUsable else { continue }
        indices.append(index)
        lengths.append(Int(figures.tokens))
      }
    }
    guard !indices.isEmpty else { throw TrainingDataError.noSamples(path: source.meta.path) }
    return TrainingSet(source: source, indices: indices, lengths: lengths)
  }

  // MARK: Figures by data set

  public struct DatasetFigures: Sendable, Equatable {
    public var name: String
    /// Lines that count, and how many times each.
    public var lines: Int
    public var times: Int
    /// Lines that can be used; all below is about these, each once.
    public var usable: Int
    public var pictures: Int
    public var tokens: Int
    public var imageTokens: Int
    public var learntTokens: Int
    public var meanTokens: Double
    public var medianTokens: Int
    public var percentile95Tokens: Int
    public var maxTokens: Int
    /// Flawed samples by what is wrong with them, most frequent first.
    public var flaws: [(kind: SampleFlaw.Kind, count: Int)]

    public static func == (one: Self, other: Self) -> Bool {
      one.name == other.name && one.lines == other.lines && one.times == other.times
        && one.usable == other.usable && one.pictures == other.pictures
        && one.tokens == other.tokens && one.imageTokens == other.imageTokens
        && one.learntTokens == other.learntTokens
        && one.medianTokens == other.medianTokens
        && one.percentile95Tokens == other.percentile95Tokens && one.maxTokens == other.maxTokens
        && one.flaws.map(\.kind) == other.flaws.map(\.kind)
        && one.flaws.map(\.count) == other.flaws.map(\.count)
    }
  }

  public var datasets: [DatasetFigures] {
    let flaws = Dictionary(grouping: flaws, by: \.source.dataset)
    return source.datasets.map { dataset in
      let all = figures[dataset.firstLine..<dataset.firstLine + dataset.kept]
      let usable = all.filter(\.isUsable)
      let lengths = usable.map { Int($0.tokens) }.sorted()
      let tokens = lengths.reduce(0, +)
      let kinds = Dictionary(grouping: flaws[dataset.meta.name] ?? [], by: \.kind)
      return DatasetFigures(
        name: dataset.meta.name, lines: dataset.kept, times: dataset.times,
        usable: usable.count, pictures: usable.reduce(0) { $0 + Int($1.pictures) },
        tokens: tokens, imageTokens: usable.reduce(0) { $0 + Int($1.imageTokens) },
        learntTokens: usable.reduce(0) { $0 + Int($1.learntTokens) },
        meanTokens: lengths.isEmpty ? 0 : Double(tokens) / Double(lengths.count),
        medianTokens: DataReport.percentile(lengths, 0.5),
        percentile95Tokens: DataReport.percentile(lengths, 0.95), maxTokens: lengths.last ?? 0,
        flaws: kinds.map { ($0.key, $0.value.count) }
          .sorted { (-$0.1, $0.0.rawValue) < (-$1.1, $1.0.rawValue) })
    }
  }

  /// The nearest rank.
  private static func percentile(_ sorted: [Int], _ share: Double) -> Int {
    guard !sorted.isEmpty else { return 0 }
    let rank = Int((share * Double(sorted.count)).rounded(.up))
    return sorted[min(max(rank, 1), sorted.count) - 1]
  }

  // MARK: Steps

  /// What the steps of the first epoch cost, step by step.
  public struct StepEstimate: Sendable, Equatable {
    public var globalBatchSize: Int
    public var stepsPerEpoch: Int
    /// Samples that no step of the epoch trains on.
    public var leftOut: Int
    /// Of all steps of the epoch.
    public var microBatches: Int
    /// Those that fill samples up included.
    public var tokens: Int
    public var imageTokens: Int
    public var learntTokens: Int
    /// Of full steps.
    public var minTokens: Int
    public var maxTokens: Int

    public var meanMicroBatches: Double { Double(microBatches) / Double(stepsPerEpoch) }
    public var meanTokens: Double { Double(tokens) / Double(stepsPerEpoch) }
    public var meanImageTokens: Double { Double(imageTokens) / Double(stepsPerEpoch) }
    public var meanLearntTokens: Double { Double(learntTokens) / Double(stepsPerEpoch) }
  }

  /// Counts the tokens of each step of the first epoch, as training would take them.
  ///
  /// - Parameter configuration: its batch sizes, seed, packing and padding count.
  /// - Returns: nil when there is no sample to train on.
  public func steps(_ configuration: TrainingConfiguration) -> StepEstimate? {
    guard let set = try? trainingSet(skippingBad: true) else { return nil }
    let length = TrainingLength(samples: set.count, configuration)
    let order = EpochOrder(length, seed: configuration.seed)
    let limit = source.encoder.maxSequenceLength
    let composer = BatchComposer(configuration, maxTokens: limit)
    let permutation = order.permutation(epoch: 0)
    var estimate = StepEstimate(
      globalBatchSize: length.globalBatchSize, stepsPerEpoch: length.stepsPerEpoch,
      leftOut: length.leftOut, microBatches: 0, tokens: 0, imageTokens: 0, learntTokens: 0,
      minTokens: .max, maxTokens: 0)
    for step in 0..<length.stepsPerEpoch {
      let samples = order.samples(permutation, step: step)
      var tokens = 0
      for sample in samples {
        let figures = figures[source.line(ofSample: set.indices[sample])]
        tokens += configuration.padToMax ? limit : Int(figures.tokens)
        estimate.imageTokens += Int(figures.imageTokens)
        estimate.learntTokens += Int(figures.learntTokens)
      }
      estimate.tokens += tokens
      estimate.microBatches += composer.compose(samples) { set.lengths[$0] }.count
      if samples.count == length.globalBatchSize || length.stepsPerEpoch == 1 {
        estimate.minTokens = min(estimate.minTokens, tokens)
        estimate.maxTokens = max(estimate.maxTokens, tokens)
      }
    }
    return estimate
  }
}
