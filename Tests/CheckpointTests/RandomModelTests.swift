import Support
import Tensors
import Testing

@testable import Checkpoint

@Suite struct RandomModelTests {
  private let folder: TemporaryFolder
  private let tokenizer = Fixtures.path("golden/v12-tiny/checkpoint")

  init() throws { folder = try TemporaryFolder() }

  private func configuration() throws -> ModelConfiguration {
    try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 48, layerCount: 2, headCount: 3, intermediateSize: 96, imageSize: 56,
        qkvBias: true, norm: .layer),
      language: LanguageConfiguration(
        hiddenSize: 64, layerCount: 2, headCount: 4, keyValueHeadCount: 2, intermediateSize: 100,
        vocabularySize: 17_000, eosTokens: [2, 6, 7]))
  }

  @Test(arguments: [ScalarType.float32, .bfloat16])
  func `a written model loads and verifies`(scalarType: ScalarType) throws {
    let configuration = try configuration()
    let path = "\(folder.path)/deep/model"
    try RandomModel.write(
      configuration, seed: 1, scalarType: scalarType, to: path, shardBytes: 200_000,
      tokenizerFolder: tokenizer)
    #expect(try ModelConfiguration.load(folder: path) == configuration)
    let reader = try CheckpointReader(folder: path)
    try reader.verify(configuration)
    #expect(try reader.tensor(reader.names[0]).scalarType == scalarType)
    let names = folderEntries(path)
    #expect(names.filter { $0.hasPrefix("model-0") }.count > 2)
    #expect(names.contains("tokenizer.model") && names.contains("added_tokens.json"))
    #expect(
      try GenerationConfiguration.load(folder: path, language: configuration.language).endTokens
        == [2, 6, 7])
    #expect(try PreprocessorConfiguration.load(folder: path) == .imageNet)
    #expect(!names.contains { $0.hasSuffix(".tmp") })
  }

  @Test func `seed and name decide the weights, shards do not`() throws {
    let configuration = try configuration()
    func write(_ name: String, seed: UInt64, shardBytes: Int) throws -> CheckpointReader {
      let path = "\(folder.path)/\(name)"
      try RandomModel.write(
        configuration, seed: seed, to: path, shardBytes: shardBytes, tokenizerFolder: nil)
      return try CheckpointReader(folder: path)
    }
    let one = try write("one", seed: 1, shardBytes: 100_000)
    let same = try write("same", seed: 1, shardBytes: 1 << 30)
    let other = try write("other", seed: 2, shardBytes: 1 << 30)
    var seen: Set<[Float]> = []
    for weight in WeightNames.all(configuration) {
      let values = try one.tensor(weight.name).floats
      #expect(try values == same.tensor(weight.name).floats)
      let isConstant = values.allSatisfy { $0 == values[0] }
      #expect(try isConstant == (values == other.tensor(weight.name).floats))
      if !isConstant { #expect(seen.insert(values).inserted, "\(weight.name)") }
    }
  }

  @Test func `weights have their scales`() throws {
    let configuration = try configuration()
    try RandomModel.write(
      configuration, seed: 5, scalarType: .float32, to: folder.path, tokenizerFolder: nil)
    let reader = try CheckpointReader(folder: folder.path)
    // More than one chunk of a million elements.
    let table = try reader.tensor(WeightNames.languageEmbedding(configuration).name).floats
    let count = Double(table.count)
    let mean = table.reduce(0) { $0 + Double($1) } / count
    let deviation = (table.reduce(0) { $0 + Double($1) * Double($1) } / count).squareRoot()
    #expect(abs(mean) < 1e-4 && abs(deviation - 0.02) < 1e-4)
    #expect(table.allSatisfy { abs($0) < 0.08 } && table.contains { abs($0) > 0.06 })
    #expect(Set(table.suffix(1000)).count > 900)
    let layer = WeightNames.VisionLayer(configuration, 1)
    #expect(try reader.tensor(layer.layerScale1.name).floats.allSatisfy { $0 == 0.1 })
    for weight in WeightNames.all(configuration)
    where weight.name.contains("norm") && weight.name.hasSuffix("weight") {
      #expect(try reader.tensor(weight.name).floats.allSatisfy { $0 == 1 }, "\(weight.name)")
    }
    #expect(
      try reader.tensor(WeightNames.Projector(configuration).normWeight.name).floats.allSatisfy {
        $0 == 1
      })
  }

  @Test func `a folder that holds a model is left alone`() throws {
    try folder.write("config.json", "{}")
    #expect(
      throws: CheckpointError.folderInUse(folder: folder.path, file: "config.json")
    ) {
      try RandomModel.write(configuration(), seed: 1, to: folder.path, tokenizerFolder: nil)
    }
    #expect(folder.names == ["config.json"])
  }

  @Test func `a tokenizer that is not there is an error`() throws {
    let empty = try folder.makeFolder("empty")
    #expect(throws: CheckpointError.missingFile("\(empty)/tokenizer.model")) {
      try RandomModel.write(
        configuration(), seed: 1, to: "\(folder.path)/model", tokenizerFolder: empty)
    }
  }

  @Test func `the benchmark's model has its size`() throws {
    let weights = WeightNames.all(try RandomModel.benchmarkConfiguration())
    let count = weights.reduce(0) { $0 + $1.shape.reduce(1, *) }
    #expect((690_000_000...720_000_000).contains(count))
  }
}
