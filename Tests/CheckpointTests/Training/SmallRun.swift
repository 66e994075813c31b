import Support
import Tensors

@testable import Checkpoint

/// A model of some thousand weights, and what stages of a mesh hold of it when they train it.
struct SmallRun {
  let folder: TemporaryFolder
  let model: String
  let output: String
  let configuration: ModelConfiguration
  let source: CheckpointReader

  /// - Parameter selectLayer: −2 leaves the last vision layer to nobody.
  init(scalarType: ScalarType = .bfloat16, selectLayer: Int = -1) throws {
    folder = try TemporaryFolder()
    model = "\(folder.path)/model"
    output = "\(folder.path)/output"
    configuration = try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 8, layerCount: 3, headCount: 2, intermediateSize: 12, imageSize: 28),
      language: LanguageConfiguration(
        hiddenSize: 8, layerCount: 3, headCount: 2, keyValueHeadCount: 1, intermediateSize: 10,
        vocabularySize: 21),
      selectLayer: selectLayer)
    try RandomModel.write(
      configuration, seed: 5, scalarType: scalarType, to: model,
      tokenizerFolder: Fixtures.path("golden/v12-tiny/checkpoint"))
    source = try CheckpointReader(folder: model)
  }

  /// What stages hold when the used weights are cut into `count` runs.
  func stages(_ count: Int, trained: (String) -> Bool = { _ in true }) throws
    -> [[CheckpointLayout.Held]]
  {
    let used = WeightNames.all(configuration).filter { weight in
      !(configuration.usedVisionLayers..<configuration.vision.layerCount).contains { layer in
        weight.name.hasPrefix("vision_model.encoder.layers.\(layer).")
      }
    }
    return try (0..<count).map { stage in
      try used[used.count * stage / count..<used.count * (stage + 1) / count].map { weight in
        .init(
          name: weight.name, shape: weight.shape,
          storedType: try source.tensor(weight.name).scalarType, isTrained: trained(weight.name))
      }
    }
  }

  func layout(
    _ count: Int, saveType: ScalarType? = nil, shardBytes: Int = 4 << 30,
    trained: (String) -> Bool = { _ in true }
  ) throws -> CheckpointLayout {
    try CheckpointLayout(
      stages: stages(count, trained: trained), configuration: configuration, source: source,
      saveType: saveType, shardBytes: shardBytes)
  }

  /// What a parameter is after some updates: bits that bfloat16 does not hold.
  static func value(_ name: String, _ shape: [Int], _ kind: String = "value") -> Tensor {
    var random = SeededGenerator(
      name.utf8.reduce(kind.utf8.reduce(7) { $0 &* 31 &+ UInt64($1) }) {
        $0 &* 31 &+ UInt64($1)
      })
    return Tensor(
      (0..<shape.reduce(1, *)).map { _ in Float.random(in: -1...1, using: &random) }, shape)
  }

  /// Does what the stages do between a writer's begin and commit.
  static func writeShares(_ writer: CheckpointWriter) throws {
    for share in writer.layout.shares {
      for file in share.model {
        try ShardFile.write(
          file.entries.map { ($0.name, value($0.name, $0.shape), $0.scalarType) },
          to: "\(writer.folder)/\(file.path)")
      }
      guard let file = share.optimizer else { continue }
      let masters = Set(file.names)
      try ShardFile.write(
        file.entries.filter { $0.name.hasPrefix("exp_avg.") }.map { entry in
          let name = String(entry.name.dropFirst("exp_avg.".count))
          return (
            name, masters.contains("master.\(name)") ? value(name, entry.shape) : nil,
            value(name, entry.shape, "first"), value(name, entry.shape, "second")
          )
        }, to: "\(writer.folder)/\(file.path)")
    }
  }

  @discardableResult
  func save(_ step: Int, layout: CheckpointLayout, saveType: ScalarType? = nil) throws
    -> CheckpointFolder
  {
    let writer = try CheckpointWriter.begin(
      output: output, step: step, layout: layout, source: source)
    try SmallRun.writeShares(writer)
    return try writer.commit(
      state: TrainerState(globalStep: step, updates: step), saveType: saveType)
  }
}
