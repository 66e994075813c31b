import Dispatch
import Synchronization
import Tensors

/// Model folders with random weights, for tests and for measuring speed.
///
/// The weights depend on seed, name and place alone: the same on every machine, for every number
/// of threads and shards. Linear weights, biases and embeddings have standard deviation 0.02,
/// normalization weights are 1, layer scales 0.1, so that activations stay finite at any depth.
/// A model that is to be trained has no biases at first, and the layer scales of its configuration.
public enum RandomModel {
  private static let tokenizerFiles = [
    "tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json",
  ]

  /// A model of 0.7 B weights: a vision encoder of 24 layers of 1024 for 448-pixel pictures, a
  /// language model of 24 layers of 1024 with 64,000 rows.
  public static func benchmarkConfiguration() throws -> ModelConfiguration {
    try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 1024, layerCount: 24, headCount: 16, intermediateSize: 4096, imageSize: 448),
      language: LanguageConfiguration(
        hiddenSize: 1024, layerCount: 24, headCount: 16, keyValueHeadCount: 4,
        intermediateSize: 2816, vocabularySize: 64_000))
  }

  /// The shape of InternVL-Chat-V1.2: 40,068,684,160 weights. A vision encoder of 45 layers of 3200
  /// (InternViT-6B-448px-V1-2), a language model of 60 layers of 7168 (Nous-Hermes-2-Yi-34B).
  public static func releaseConfiguration() throws -> ModelConfiguration {
    try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 3200, layerCount: 45, headCount: 25, intermediateSize: 12_800,
        imageSize: 448),
      language: LanguageConfiguration(
        hiddenSize: 7168, layerCount: 60, headCount: 56, keyValueHeadCount: 8,
        intermediateSize: 20_480, vocabularySize: 64_007, eosTokens: [2, 6, 7]),
      systemMessage: "Answer the questions.")
  }

  /// Writes config.json, the weights, generation_config.json, preprocessor_config.json and, from
  /// another model's folder, the tokenizer, whose vocabulary may be smaller than the model's.
  ///
  /// - Parameters:
  ///   - scalarType: float32 or bfloat16, whatever `torch_dtype` of the configuration says.
  ///   - folder: made if it does not exist; must hold no model yet.
  ///   - shardBytes: about how large a file of weights may be.
  ///   - tokenizerFolder: nil for a model without a tokenizer.
  ///   - trained: whether the model is a start for training.
  /// - Throws: ``CheckpointError``.
  public static func write(
    _ configuration: ModelConfiguration, seed: UInt64, scalarType: ScalarType = .bfloat16,
    to folder: String, shardBytes: Int = 2 << 30, tokenizerFolder: String?,
    forTraining trained: Bool = false
  ) throws {
    precondition(scalarType == .float32 || scalarType == .bfloat16)
    try prepareModelFolder(folder)
    if let tokenizerFolder { try copyTokenizer(from: tokenizerFolder, to: folder) }
    let plan = ShardPlan(
      WeightNames.all(configuration).map { .init($0.name, scalarType, $0.shape) },
      shardBytes: shardBytes)
    for shard in plan.shards {
      let writer = try SafetensorsWriter(
        path: "\(folder)/\(shard.fileName)", entries: shard.entries)
      for entry in shard.entries {
        let start = trained ? configuration.vision.initializerFactor : nil
        try write(
          entry, RandomValues(name: entry.name, seed: seed, start: start), to: writer)
      }
      try writer.commit()
    }
    try plan.writeIndex(to: folder)
    try writeCompanions(configuration, to: folder)
    try AtomicFile.write(configuration.encoded, to: "\(folder)/config.json")
  }

  /// Writes generation_config.json and preprocessor_config.json.
  static func writeCompanions(_ configuration: ModelConfiguration, to folder: String) throws {
    let generation = GenerationConfiguration(endTokens: configuration.language.eosTokens)
    try AtomicFile.write(
      Array(generation.json.text.utf8), to: "\(folder)/generation_config.json")
    let preprocessor = PreprocessorConfiguration.imageNet.json(imageSize: configuration.imageSize)
    try AtomicFile.write(Array(preprocessor.text.utf8), to: "\(folder)/preprocessor_config.json")
  }

  static func copyTokenizer(from source: String, to folder: String) throws {
    try requireFolder(source)
    for name in tokenizerFiles {
      let path = "\(source)/\(name)"
      guard fileExists(path) || name == tokenizerFiles[0] else { continue }
      try AtomicFile.write(readFile(path, limit: 64 << 20), to: "\(folder)/\(name)")
    }
  }

  private static func write(
    _ entry: SafetensorsWriter.Entry, _ values: RandomValues, to writer: SafetensorsWriter
  ) throws {
    let count = entry.shape.reduce(1, *)
    let chunk = 1 << 20
    let failure = Mutex<(any Error)?>(nil)
    DispatchQueue.concurrentPerform(iterations: (count + chunk - 1) / chunk) { index in
      let range = index * chunk..<min((index + 1) * chunk, count)
      let part = Tensor(uninitialized: entry.scalarType, [range.count])
      values.fill(part, from: range.lowerBound)
      do {
        try withExtendedLifetime(part.storage) {
          try writer.write(
            entry.name, at: range.lowerBound * entry.scalarType.byteCount,
            UnsafeRawBufferPointer(start: part.baseAddress, count: part.byteCount))
        }
      } catch {
        failure.withLock { $0 = $0 ?? error }
      }
    }
    if let error = failure.withLock({ $0 }) { throw error }
  }
}
