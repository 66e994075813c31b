import Support
import Tensors
import Testing

@testable import Checkpoint

@Suite struct CheckpointReaderTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func shard(_ name: String, _ tensors: [String]) throws {
    try SafetensorsWriter.write(
      tensors.enumerated().map { ($0.element, Tensor([Float($0.offset)], [1])) },
      to: "\(folder.path)/\(name).safetensors")
  }

  private func index(_ map: String) throws {
    try folder.write("model.safetensors.index.json", #"{"metadata":{},"weight_map":{\#(map)}}"#)
  }

  private static let folders =
    ["golden/v12-tiny", "golden/v12-sharded-bf16"]
    + [
      "mixed-bf16", "pos-interp", "ps-v2", "rope-dynamic", "rope-linear", "rope-llama3", "tied",
      "tiles", "v11", "vit300m",
    ].map { "variants/\($0)" }

  @Test(arguments: folders)
  func `checkpoints of the release format hold exactly the weights that are expected`(
    name: String
  ) throws {
    let path = Fixtures.path("\(name)/checkpoint")
    let configuration = try ModelConfiguration.load(folder: path)
    let reader = try CheckpointReader(folder: path)
    try reader.verify(configuration)
    #expect(reader.names == WeightNames.all(configuration).map(\.name).sorted())
  }

  @Test func `values are those of the file`() throws {
    // lm_head comes first in the data, the class token first among the vision weights.
    let path = Fixtures.path("golden/v12-tiny/checkpoint")
    let bytes = try readFile("\(path)/model.safetensors", limit: 1 << 24)
    let length = bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let reader = try CheckpointReader(folder: path)
    let head = try reader.tensor("language_model.lm_head.weight")
    #expect(head.scalarType == .float32 && head.shape == [512, 64])
    let first = bytes[(8 + length)..<(8 + length + 4 * head.count)]
    #expect(head.withElements(of: Float.self) { Array(UnsafeRawBufferPointer($0)) } == Array(first))
    #expect(head.floats.contains { $0 != 0 })
  }

  @Test func `shards of bfloat16 are read`() throws {
    let path = Fixtures.path("golden/v12-sharded-bf16/checkpoint")
    let reader = try CheckpointReader(folder: path)
    let configuration = try ModelConfiguration.load(folder: path)
    for weight in WeightNames.all(configuration) {
      let tensor = try reader.tensor(weight, neededFor: "test")
      #expect(tensor.scalarType == .bfloat16)
      #expect(tensor.floats.allSatisfy { abs($0) < 10 } && tensor.floats.contains { $0 != 0 })
    }
    #expect(throws: CheckpointError.missingTensor(file: path, tensor: "x", neededFor: nil)) {
      try reader.tensor("x")
    }
  }

  @Test func `a process needs only the shards it asks for`() throws {
    try shard("one", ["a", "b"])
    try index(#""a":"one.safetensors","b":"one.safetensors","c":"two.safetensors""#)
    let reader = try CheckpointReader(folder: folder.path)
    #expect(reader.names == ["a", "b", "c"] && reader.contains("c"))
    #expect(try reader.tensor("b", shape: [1], neededFor: "test").floats == [1])
    let missing = CheckpointError.missingShard(
      file: "\(folder.path)/two.safetensors", tensor: "c", neededFor: "stage 2")
    #expect(throws: missing) { try reader.tensor("c", shape: [1], neededFor: "stage 2") }
  }

  @Test(arguments: [
    "../one.safetensors", "/etc/one.safetensors", "x/one.safetensors", "..", "", "one.bin",
    ".safetensors", "a\\\\b.safetensors", "a\\u0000.safetensors",
  ])
  func `an index names files of its folder only`(name: String) throws {
    try index(#""a":"\#(name)""#)
    #expect {
      try CheckpointReader(folder: folder.path)
    } throws: { error in
      guard case CheckpointError.invalidShardName(_, tensor: "a", _)? = error as? CheckpointError
      else { return false }
      return true
    }
  }

  @Test func `a tensor in two shards is refused`() throws {
    try shard("one", ["a", "b"])
    try shard("two", ["b", "c"])
    try index(#""a":"one.safetensors","b":"one.safetensors","c":"two.safetensors""#)
    let reader = try CheckpointReader(folder: folder.path)
    #expect(try reader.tensor("a").floats == [0])
    #expect(
      throws: CheckpointError.nameCollision(
        tensor: "b", first: "one.safetensors", second: "two.safetensors")
    ) { try reader.tensor("c") }
  }

  @Test func `a tensor absent from its shard is named with the shard`() throws {
    try shard("one", ["a"])
    try index(#""a":"one.safetensors","b":"one.safetensors""#)
    let reader = try CheckpointReader(folder: folder.path)
    #expect(
      throws: CheckpointError.missingTensor(
        file: "\(folder.path)/one.safetensors", tensor: "b", neededFor: "stage 1")
    ) { try reader.tensor("b", shape: [1], neededFor: "stage 1") }
  }

  @Test func `a shard replaced by a folder is refused`() throws {
    let path = try folder.makeFolder("one.safetensors")
    try index(#""a":"one.safetensors""#)
    let reader = try CheckpointReader(folder: folder.path)
    #expect(throws: CheckpointError.notAFile(path)) { try reader.tensor("a") }
  }

  @Test func `weights replaced by a folder are refused`() throws {
    let path = try folder.makeFolder("model.safetensors")
    #expect(throws: CheckpointError.notAFile(path)) { try CheckpointReader(folder: folder.path) }
  }

  @Test func `folders without weights say what is missing`() throws {
    #expect(throws: CheckpointError.noWeights(folder: folder.path)) {
      try CheckpointReader(folder: folder.path)
    }
    try shard("model-00001-of-00002", ["a"])
    #expect(throws: CheckpointError.missingIndex(folder: folder.path)) {
      try CheckpointReader(folder: folder.path)
    }
    #expect(throws: CheckpointError.missingFolder("/nonexistent")) {
      try CheckpointReader(folder: "/nonexistent")
    }
    let file = "\(folder.path)/model-00001-of-00002.safetensors"
    #expect(throws: CheckpointError.notAFolder(file)) { try CheckpointReader(folder: file) }
  }

  @Test(arguments: [
    "", "[]", "{}", #"{"weight_map":[]}"#, #"{"weight_map":{"a":1}}"#,
    #"{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}"#,
    #"{"weight_map":{},"weight_map":{}}"#, #"{"weight_map":{}} x"#,
  ])
  func `an index that is none is refused`(text: String) throws {
    try folder.write("model.safetensors.index.json", text)
    #expect(throws: CheckpointError.self) { try CheckpointReader(folder: folder.path) }
  }

  @Test func `weights that the configuration describes otherwise do not verify`() throws {
    let path = Fixtures.path("golden/v12-tiny/checkpoint")
    let configuration = try ModelConfiguration.load(folder: path)
    var language = configuration.language
    language.intermediateSize += 1
    let other = try ModelConfiguration(vision: configuration.vision, language: language)
    #expect {
      try CheckpointReader(folder: path).verify(other)
    } throws: { error in
      guard
        case CheckpointError.shapeMismatch(
          _, "language_model.model.layers.0.mlp.gate_proj.weight", [177, 64], [176, 64], _)? =
          error as? CheckpointError
      else { return false }
      return true
    }
  }

  @Test func `threads may read at once`() async throws {
    let path = Fixtures.path("golden/v12-sharded-bf16/checkpoint")
    let reader = try CheckpointReader(folder: path)
    let names = reader.names
    try await withThrowingTaskGroup(of: Int.self) { group in
      for name in names + names { group.addTask { try reader.tensor(name).byteCount } }
      let total = try await group.reduce(0, +)
      #expect(total == 2 * 3_075_616)
    }
  }
}
