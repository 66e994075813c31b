import Tensors

/// Model folders with random quantised weights, to measure the speed of shapes whose float weights
/// nobody has room for.
///
/// Seed, name and place decide every byte: the same on every machine, for every number of threads
/// and size of files. Files that are finished stay when the process is ended, and are used by the
/// next one of the same seed, shape and recipe.
public struct RandomQuantisedModel: Sendable {
  public let configuration: ModelConfiguration
  public let recipe: QuantisationRecipe
  public let seed: UInt64
  public var threads = 1
  public var shardBytes = 2 << 30

  public init(_ configuration: ModelConfiguration, recipe: QuantisationRecipe, seed: UInt64) {
    self.configuration = configuration
    self.recipe = recipe.adapted(to: configuration)
    self.seed = seed
  }

  /// Bytes of all weights.
  public var byteCount: Int { entries.reduce(0) { $0 + $1.byteCount } }

  /// Weights, also those that are not quantised.
  public var parameterCount: Int {
    WeightNames.all(configuration).reduce(0) { $0 + $1.shape.reduce(1, *) }
  }

  private var entries: [SafetensorsWriter.Entry] {
    WeightNames.all(configuration).map { weight in
      guard let format = recipe.storage(of: weight)?.format,
        let layout = PanelLayout(format, outputs: weight.shape[0], depth: weight.shape[1])
      else { return .init(weight.name, .bfloat16, weight.shape) }
      return .init(weight.name, panels: layout)
    }
  }

  /// - Parameters:
  ///   - folder: does not exist yet, or is empty.
  ///   - tokenizerFolder: nil for a model without a tokenizer.
  ///   - progress: called often, from several threads.
  /// - Throws: ``CheckpointError``.
  public func write(
    to folder: String, tokenizerFolder: String?,
    progress: @escaping @Sendable (WritingProgress) -> Void = { _ in }
  ) throws {
    let target = try ResumableFolder(
      folder,
      ingredients: [
        "the configuration": Digest.sha256(configuration.encoded), "the seed": "\(seed)",
        "the recipe": recipe.json.compactText, "the size of files": "\(shardBytes)",
      ])
    if let tokenizerFolder {
      try RandomModel.copyTokenizer(from: tokenizerFolder, to: target.path)
    }
    let plan = ShardPlan(entries, shardBytes: shardBytes)
    try ShardedWriting(plan: plan, threads: threads, progress: progress).write(into: target) {
      piece, part in
      if let layout = piece.entry.panels {
        RandomPanels(name: piece.entry.name, seed: seed, layout: layout)
          .fill(part, from: piece.range.lowerBound)
      } else {
        RandomValues(name: piece.entry.name, seed: seed).fill(part, from: piece.range.lowerBound)
      }
    }
    try plan.writeIndex(to: target.path)
    try RandomModel.writeCompanions(configuration, to: target.path)
    try AtomicFile.write(configuration.encoded(with: recipe), to: "\(target.path)/config.json")
    try target.commit()
  }
}
