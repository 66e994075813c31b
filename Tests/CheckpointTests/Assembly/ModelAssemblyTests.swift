import Support
import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The small golden model, taken apart again: its tokenizer and tables without the last 7 tokens.
private struct TakenApart {
  let folder: TemporaryFolder
  let golden = Fixtures.path("golden/v12-tiny/checkpoint")
  let source: CheckpointReader
  let growth = TokenizerGrowth(size: 505) { ["<img>": 503, "</img>": 504][$0] }
  var parts: ModelParts
  var output: String { "\(folder.path)/model" }

  init() throws {
    folder = try TemporaryFolder()
    source = try CheckpointReader(folder: golden)
    let path = folder.path
    parts = ModelParts(
      vision: "\(path)/vision", projector: "\(path)/projector.safetensors",
      language: "\(path)/language", tokenizer: "\(path)/tokenizer")
    for name in ["vision", "language", "tokenizer"] { _ = try folder.makeFolder(name) }
    guard
      case .object(let members) = try JSONValue.parse(
        readFile("\(golden)/config.json", limit: 1 << 20), file: "f")
    else { return }
    for case (let key, .object(let part)) in members where key.hasSuffix("_config") {
      let isLanguage = key == "llm_config"
      let changed = part.map { $0.0 == "vocab_size" ? ($0.0, .integer(505)) : $0 }
      try folder.write(
        "\(isLanguage ? "language" : "vision")/config.json", JSONValue.object(changed).text)
    }
    try writePart("vision_model.", to: "vision/model.safetensors")
    try writePart("language_model.", to: "language/model.safetensors", rows: 505)
    try writePart("mlp1.", to: "projector.safetensors")
    try writeTokenizer()
  }

  func writePart(_ prefix: String, to file: String, rows: Int? = nil) throws {
    let tensors = try source.names.filter { $0.hasPrefix(prefix) }.map { name in
      let tensor = try source.tensor(name)
      let isTable = VocabularyGrowth.names.contains(name)
      return (
        name: String(name.dropFirst(prefix.count)),
        tensor: isTable && rows != nil ? tensor.rows(0..<(rows ?? 0)) : tensor
      )
    }
    try SafetensorsWriter.write(tensors, to: "\(folder.path)/\(file)")
  }

  private func writeTokenizer() throws {
    try folder.write(
      "tokenizer/tokenizer.model", readFile("\(golden)/tokenizer.model", limit: 1 << 20))
    let new = Set(growth.new)
    func without(_ value: JSONValue) -> JSONValue {
      switch value {
      case .object(let members):
        .object(
          members.filter { !new.contains($0.0) && Int($0.0) ?? 0 < 505 }
            .map { ($0.0, without($0.1)) })
      case .array(let elements):
        .array(
          elements.filter {
            if case .string(let text) = $0 { return !new.contains(text) }
            return true
          })
      default: value
      }
    }
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
      let value = try JSONValue.parse(
        readFile("\(golden)/\(name)", limit: 1 << 20), file: "f")
      try folder.write("tokenizer/\(name)", without(value).text)
    }
  }

  func assembly() -> ModelAssembly {
    var assembly = ModelAssembly(parts: parts, growth: growth)
    assembly.scalarType = .float32
    // Those of the template; the language model's own end is 7.
    assembly.endTokens = [6, 2, 7]
    return assembly
  }
}

/// JSON as text with sorted keys, to compare.
private func canonical(_ value: JSONValue) -> String {
  func sorted(_ value: JSONValue) -> JSONValue {
    switch value {
    case .object(let members):
      .object(members.sorted { $0.0 < $1.0 }.map { ($0.0, sorted($0.1)) })
    case .array(let elements): .array(elements.map(sorted))
    default: value
    }
  }
  return sorted(value).text
}

@Suite struct ModelAssemblyTests {
  @Test func `a model taken apart is put together again`() throws {
    let apart = try TakenApart()
    let configuration = try apart.assembly().write(to: apart.output)
    #expect(try ModelConfiguration.load(folder: apart.output) == configuration)
    #expect(configuration.language.vocabularySize == 512)
    let reader = try CheckpointReader(folder: apart.output)
    try reader.verify(configuration)
    #expect(reader.names == apart.source.names)
    for name in reader.names {
      let (found, expected) = (try reader.tensor(name), try apart.source.tensor(name))
      if VocabularyGrowth.names.contains(name) {
        #expect(found.rows(0..<505).floats == expected.rows(0..<505).floats)
      } else {
        #expect(found.floats == expected.floats, "\(name)")
      }
    }
    // The golden configuration, but for keys that parts do not have.
    for name in [
      "config.json", "tokenizer_config.json", "special_tokens_map.json",
      "added_tokens.json", "preprocessor_config.json",
    ] {
      func text(_ folder: String) throws -> String {
        guard
          case .object(let members) = try JSONValue.parse(
            readFile("\(folder)/\(name)", limit: 1 << 20), file: name)
        else { return "" }
        return canonical(
          .object(
            members.filter { $0.0 != "_commit_hash" }.map { key, value in
              guard case .object(let part) = value, key.hasSuffix("_config") else {
                return (key, value)
              }
              return (key, .object(part.filter { $0.0 != "_name_or_path" }))
            }))
      }
      #expect(try text(apart.output) == text(apart.golden), "\(name)")
    }
    #expect(
      try GenerationConfiguration.load(folder: apart.output, language: configuration.language)
        .endTokens == [2, 6, 7])
  }

  @Test func `new rows are normal in the embedding, the mean in the head`() throws {
    let apart = try TakenApart()
    try apart.assembly().write(to: apart.output)
    let reader = try CheckpointReader(folder: apart.output)
    let new = try reader.tensor("language_model.model.embed_tokens.weight").rows(505..<512).floats
    let mean = new.reduce(0, +) / Float(new.count)
    let deviation = (new.reduce(0) { $0 + $1 * $1 } / Float(new.count)).squareRoot()
    #expect(abs(mean) < 0.004 && (0.017..<0.023).contains(deviation))
    #expect(Set(new).count == new.count)

    let head = try reader.tensor("language_model.lm_head.weight")
    let old = try apart.source.tensor("language_model.lm_head.weight").rows(0..<505).floats
    for column in 0..<64 {
      let sum = (0..<505).reduce(0.0) { $0 + Double(old[$1 * 64 + column]) }
      for row in 505..<512 {
        #expect(abs(Double(head[row].floats[column]) - sum / 505) < 1e-7)
      }
    }
    var again = apart.assembly()
    again.seed = 43
    try again.write(to: apart.output + "-43")
    let other = try CheckpointReader(folder: apart.output + "-43")
    #expect(
      try other.tensor("language_model.model.embed_tokens.weight").rows(505..<512).floats != new)
  }

  @Test func `a projector that is not given starts as PyTorch starts it`() throws {
    let apart = try TakenApart()
    var assembly = apart.assembly()
    assembly.parts.projector = nil
    try assembly.write(to: apart.output)
    let reader = try CheckpointReader(folder: apart.output)
    #expect(try Set(reader.tensor("mlp1.0.weight").floats) == [1])
    #expect(try Set(reader.tensor("mlp1.0.bias").floats) == [0])
    for (name, inputs) in [
      ("mlp1.1.weight", 384), ("mlp1.1.bias", 384), ("mlp1.3.weight", 64), ("mlp1.3.bias", 64),
    ] as [(String, Float)] {
      let values = try reader.tensor(name).floats
      let bound = 1 / inputs.squareRoot()
      #expect(values.allSatisfy { abs($0) <= bound }, "\(name)")
      let largest = values.reduce(0) { max($0, abs($1)) }
      #expect(largest > 0.8 * bound, "\(name)")
      #expect(abs(values.reduce(0, +) / Float(values.count)) < 0.4 * bound, "\(name)")
    }
  }

  @Test func `types and shards are as asked for`() throws {
    let apart = try TakenApart()
    var assembly = apart.assembly()
    assembly.scalarType = .bfloat16
    assembly.shardBytes = 100_000
    try assembly.write(to: apart.output)
    let reader = try CheckpointReader(folder: apart.output)
    let name = "vision_model.encoder.layers.1.mlp.fc1.weight"
    #expect(
      try reader.tensor(name).floats
        == apart.source.tensor(name).converted(to: .bfloat16).floats)
    #expect(try ModelConfiguration.load(folder: apart.output).torchType == "bfloat16")
    #expect(fileExists("\(apart.output)/model.safetensors.index.json"))
  }

  @Test func `a projector in PyTorch's format goes with parts of its size`() throws {
    let apart = try TakenApart()
    var assembly = apart.assembly()
    assembly.parts.projector = Fixtures.path("torch/projector.pth")
    #expect(
      throws: CheckpointError.shapeMismatch(
        file: Fixtures.path("torch"), tensor: "0.weight", expected: [384], found: [32],
        neededFor: "the model is put together from it")
    ) { try assembly.write(to: apart.output) }
    #expect(!fileExists("\(apart.output)/config.json"))
  }

  @Test func `parts that do not go together are refused before anything is written`() throws {
    let apart = try TakenApart()
    var assembly = apart.assembly()
    assembly.growth = TokenizerGrowth(size: 600) { _ in nil }
    #expect {
      try assembly.write(to: apart.output)
    } throws: { error in
      guard case .unsuitablePart? = error as? CheckpointError else { return false }
      return true
    }
    assembly = apart.assembly()
    assembly.parts.vision = apart.parts.language
    #expect(throws: CheckpointError.self) { try assembly.write(to: apart.output) }
    assembly.parts.vision = "/nonexistent"
    #expect(throws: CheckpointError.missingFolder("/nonexistent")) {
      try assembly.write(to: apart.output)
    }
    #expect(!fileExists(apart.output))
    try apart.assembly().write(to: apart.output)
    #expect(
      throws: CheckpointError.folderInUse(folder: apart.output, file: "added_tokens.json")
    ) { try apart.assembly().write(to: apart.output) }
  }

  @Test(arguments: [([], [7]), ([7, 8, 2], [2, 7, 8])])
  func `answers end where the language model's do, and where they are said to`(
    given: [Int], expected: [Int]
  ) throws {
    let apart = try TakenApart()
    var assembly = apart.assembly()
    assembly.endTokens = given
    let configuration = try assembly.write(to: apart.output)
    #expect(
      try GenerationConfiguration.load(folder: apart.output, language: configuration.language)
        .endTokens == expected)
  }

  @Test func `a model that fails midway leaves nothing, and can be tried again`() throws {
    let apart = try TakenApart()
    let path = "\(apart.parts.vision)/preprocessor_config.json"
    try apart.folder.write("vision/preprocessor_config.json", "{")
    let before = apart.folder.names
    #expect(throws: CheckpointError.self) { try apart.assembly().write(to: apart.output) }
    #expect(apart.folder.names == before)
    unlink(path)
    try apart.assembly().write(to: apart.output)
    try CheckpointReader(folder: apart.output).verify(
      ModelConfiguration.load(folder: apart.output))
    #expect(apart.folder.names == (before + ["model"]).sorted())
  }

  @Test func `a tokenizer that has all tokens is copied as it is`() throws {
    let apart = try TakenApart()
    var assembly = apart.assembly()
    assembly.parts.tokenizer = apart.golden
    try apart.writePart("language_model.", to: "language/model.safetensors")
    let path = "\(apart.parts.language)/config.json"
    let text = String(decoding: try readFile(path, limit: 1 << 20), as: UTF8.self)
    try apart.folder.write(
      "language/config.json", text.replacing("\"vocab_size\": 505", with: "\"vocab_size\": 512"))
    assembly.growth = TokenizerGrowth(size: 512) { token in
      TokenizerGrowth.tokens.firstIndex(of: token).map { 503 + $0 }
    }
    #expect(assembly.growth.new.isEmpty)
    let configuration = try assembly.write(to: apart.output)
    let reader = try CheckpointReader(folder: apart.output)
    for name in VocabularyGrowth.names {
      #expect(try reader.tensor(name).floats == apart.source.tensor(name).floats)
    }
    #expect(configuration.language.vocabularySize == 512)
  }

  @Test func `pictures marks that are pieces keep their ids`() {
    let yi = TokenizerGrowth(size: 64_000) { ["<img>": 68, "</img>": 70][$0] }
    #expect(yi.size == 64_007)
    #expect(yi.new.first == "<IMG_CONTEXT>" && yi.new.last == "</box>")
    #expect(TokenizerGrowth(size: 32_000) { _ in nil }.new == TokenizerGrowth.tokens)
  }
}
