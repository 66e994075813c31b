import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct ModelExportTests {
  @Test(arguments: [nil, ScalarType.float32, .bfloat16], [ScalarType.float32, .bfloat16])
  func `a checkpoint becomes a model alone, exact where it can be`(
    type: ScalarType?, stored: ScalarType
  ) throws {
    let run = try SmallRun(scalarType: stored, selectLayer: -2)
    let saved = try run.save(3, layout: run.layout(2))
    let output = "\(run.folder.path)/export"
    let configuration = try ModelExport.write(
      checkpoint: saved.path, to: output, as: type, shardBytes: 2000)
    #expect(configuration.language == run.configuration.language)
    let found = try CheckpointReader(folder: output)
    try found.verify(ModelConfiguration.load(folder: output))
    #expect(found.names == WeightNames.all(run.configuration).map(\.name).sorted())
    let held = Set(try run.stages(1)[0].map(\.name))
    for weight in WeightNames.all(run.configuration) {
      let tensor = try found.tensor(weight.name)
      #expect(tensor.scalarType == type ?? stored)
      let exact =
        held.contains(weight.name)
        ? SmallRun.value(weight.name, weight.shape)
        : try run.source.tensor(weight.name).converted(to: .float32)
      #expect(tensor.floats == exact.converted(to: type ?? stored).floats, "\(weight.name)")
    }
    if let type {
      #expect(try ModelConfiguration.load(folder: output).torchType == type.rawValue)
    }
    for name in ["optimizer", "manifest.json", "trainer_state.json", "run_state.json"] {
      #expect(!fileExists("\(output)/\(name)"))
    }
    #expect(fileExists("\(output)/tokenizer.model"))
  }

  @Test func `what is no whole checkpoint is not exported`() throws {
    let run = try SmallRun()
    let output = "\(run.folder.path)/export"
    #expect(throws: CheckpointError.missingFile("\(run.model)/manifest.json")) {
      try ModelExport.write(checkpoint: run.model, to: output)
    }
    #expect(throws: CheckpointError.missingFolder("/nonexistent")) {
      try ModelExport.write(checkpoint: "/nonexistent", to: output)
    }
    let saved = try run.save(1, layout: run.layout(1))
    #expect(
      throws: CheckpointError.folderInUse(folder: saved.path, file: "added_tokens.json")
    ) { try ModelExport.write(checkpoint: saved.path, to: saved.path) }
    try saved.check(digests: true)
    #expect(truncate("\(saved.path)/model.safetensors", 100) == 0)
    #expect(throws: CheckpointError.self) {
      try ModelExport.write(checkpoint: saved.path, to: output)
    }
    #expect(run.folder.names == ["model", "output"])
  }
}
