import Tensors

/// Puts a model together from ``ModelParts``, tensor by tensor: none of the parts has to fit in
/// memory.
///
/// The vocabulary grows to the tokenizer's as in the reference's
/// train/internvl_chat_finetune.py: new rows of the embedding are normal with standard deviation
/// 0.02, new rows of the head the mean of those before them. A projector that is not given starts
/// as PyTorch's `LayerNorm` and `Linear` do.
public struct ModelAssembly: Sendable {
  public var parts: ModelParts
  public var growth: TokenizerGrowth
  /// Pixels on a side of a tile; nil: as the vision encoder has it.
  public var imageSize: Int?
  public var selectLayer = -1
  public var downsampleRatio: Float = 0.5
  public var pixelShuffle = ModelConfiguration.PixelShuffle.v1
  public var template = "Hermes-2"
  public var systemMessage: String?
  /// Tokens that end an answer, besides those of the language model's configuration.
  public var endTokens: [Int] = []
  /// float32 or bfloat16.
  public var scalarType = ScalarType.bfloat16
  public var seed: UInt64 = 42
  public var shardBytes = 4 << 30

  public init(parts: ModelParts, growth: TokenizerGrowth) {
    self.parts = parts
    self.growth = growth
  }

  /// Writes the model's folder, which does not exist yet or is empty, and appears when it is
  /// whole.
  ///
  /// - Returns: the model's configuration.
  /// - Throws: ``CheckpointError``: a part is missing, is another than config.json says, or does
  ///   not go with the others.
  @discardableResult
  public func write(to folder: String) throws -> ModelConfiguration {
    let json = try AssembledConfiguration.json(self)
    let configuration = try ModelConfiguration(
      Array(json.text.utf8), file: "config.json of the parts")
    let sources = try PartReaders(parts)
    for weight in WeightNames.all(configuration) { try check(weight, sources) }
    let vocabulary = VocabularyGrowth(
      growth: growth, seed: seed, isTied: configuration.language.tiesEmbeddings)
    let target = try AtomicFolder(new: folder)
    try write(configuration, sources, vocabulary, to: target.path)
    try target.commit(replacing: false)
    return configuration
  }

  private func write(
    _ configuration: ModelConfiguration, _ sources: PartReaders, _ vocabulary: VocabularyGrowth,
    to folder: String
  ) throws {
    try TokenizerFiles.write(from: parts.tokenizer, growth: growth, to: folder)

    let plan = ShardPlan(
      WeightNames.all(configuration).map { .init($0.name, scalarType, $0.shape) },
      shardBytes: shardBytes)
    for shard in plan.shards {
      let writer = try SafetensorsWriter(
        path: "\(folder)/\(shard.fileName)", entries: shard.entries)
      for entry in shard.entries {
        let weight = Weight(entry.name, entry.shape)
        if let tensor = try sources.tensor(weight) {
          if VocabularyGrowth.names.contains(weight.name) {
            try vocabulary.write(tensor, as: weight, scalarType, to: writer)
            continue
          }
          try ShardFile.write(tensor, as: weight.name, scalarType, to: writer)
        } else {
          try ShardFile.write(
            newProjector(weight, configuration), as: weight.name, scalarType, to: writer)
        }
      }
      try writer.commit()
    }
    try plan.writeIndex(to: folder)
    let ends = Set(configuration.language.eosTokens + endTokens).sorted()
    let generation = GenerationConfiguration(endTokens: ends)
    try AtomicFile.write(
      Array(generation.json.text.utf8), to: "\(folder)/generation_config.json")
    let preprocessor = try PreprocessorConfiguration.load(folder: parts.vision)
      .json(imageSize: configuration.imageSize)
    try AtomicFile.write(Array(preprocessor.text.utf8), to: "\(folder)/preprocessor_config.json")
    try AtomicFile.write(configuration.encoded, to: "\(folder)/config.json")
  }

  /// Says what is wrong with the parts before anything is written.
  private func check(_ weight: Weight, _ sources: PartReaders) throws {
    guard let source = try sources.source(of: weight.name) else { return }
    let found = try source.reader.entry(source.name)
    var expected = weight.shape
    if VocabularyGrowth.names.contains(weight.name), let rows = found.shape.first {
      guard rows >= growth.oldSize else {
        throw CheckpointError.unsuitablePart(
          file: parts.tokenizer,
          reason: "its tokenizer has \(growth.oldSize) tokens, \(source.name) \(rows) rows")
      }
      // New tokens make the table anew; without any it stays what its config.json says.
      if !growth.new.isEmpty { expected[0] = rows }
    }
    guard found.shape == expected else {
      throw CheckpointError.shapeMismatch(
        file: source.reader.folder, tensor: source.name, expected: expected,
        found: found.shape, neededFor: "the model is put together from it")
    }
    guard found.scalarType.isFloat else {
      throw CheckpointError.unsupportedScalarType(
        file: source.reader.folder, tensor: source.name, found: "\(found.scalarType)",
        expected: "bfloat16 or float32")
    }
  }

  /// As PyTorch initializes a LayerNorm, and a Linear by `kaiming_uniform_(a: √5)`, which is
  /// uniform within ±1/√in for weight and bias.
  private func newProjector(_ weight: Weight, _ configuration: ModelConfiguration) -> Tensor {
    let count = weight.shape.reduce(1, *)
    if weight.name.hasPrefix("mlp1.0.") {
      let value: Float = weight.name.hasSuffix("weight") ? 1 : 0
      return Tensor([Float](repeating: value, count: count), weight.shape)
    }
    let inputs =
      weight.name.hasPrefix("mlp1.1.")
      ? configuration.projectorInputSize : configuration.language.hiddenSize
    return InitialValues(name: weight.name, seed: seed)
      .uniform(count: count, bound: 1 / Double(inputs).squareRoot()).reshaped(weight.shape)
  }
}
