import Support
import Tensors
import Testing

@testable import Checkpoint

@Suite struct CheckpointWriterTests {
  @Test(arguments: [1, 2, 5], [ScalarType.float32, .bfloat16])
  func `what stages wrote is read again by name`(stages: Int, type: ScalarType) throws {
    let run = try SmallRun(scalarType: type, selectLayer: -2)
    let saved = try run.save(3, layout: run.layout(stages, shardBytes: 1000))
    try saved.check(digests: true)
    let configuration = try ModelConfiguration.load(folder: saved.path)
    #expect(configuration == run.configuration)
    let reader = try TrainingStateReader(folder: saved.path)
    try reader.model.verify(configuration)
    #expect(reader.model.names == WeightNames.all(configuration).map(\.name).sorted())
    #expect(reader.updates == 3)
    for held in try run.stages(1)[0] {
      let value = SmallRun.value(held.name, held.shape)
      #expect(try reader.value(of: held.name)?.floats == value.floats)
      #expect(
        try reader.model.tensor(held.name).floats == value.converted(to: type).floats, "\(held)")
      #expect(
        try reader.firstMoment(of: held.name)?.floats
          == SmallRun.value(held.name, held.shape, "first").floats)
      #expect(
        try reader.secondMoment(of: held.name)?.floats
          == SmallRun.value(held.name, held.shape, "second").floats)
      #expect(try (reader.tensor(named: "master.\(held.name)") == nil) == (type == .float32))
    }
    let unheld = "vision_model.encoder.layers.2.attn.qkv.weight"
    #expect(try reader.model.tensor(unheld).floats == run.source.tensor(unheld).floats)
    #expect(try reader.firstMoment(of: unheld) == nil)
    try reader.require(run.stages(1)[0].map { Weight($0.name, $0.shape) })
    #expect(
      throws: CheckpointError.missingState(
        folder: saved.path, parameter: unheld, state: "exp_avg.\(unheld)")
    ) { try reader.require([Weight(unheld, [24, 8])]) }
  }
}
