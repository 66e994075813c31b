import Checkpoint
import InternVL
import Kernels
import Messages
import Sequencer
import Support
import Tensors
import Testing
import Training

@testable import StageRuntime

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Runs that train adapters.
@Suite(.timeLimit(.minutes(3)), .serialized) struct RunAdapterTests {
  private static func adapt(_ configuration: inout TrainingConfiguration) {
    configuration.useBackboneLoRA = 3
    configuration.useLanguageLoRA = 4
    configuration.loraAlpha = 6
    configuration.loraDropout = 0.1
    configuration.freezeBackbone = true
    configuration.freezeLanguage = true
    configuration.saveType = "float32"
  }

  @Test func `Adapters go on elsewhere with the bits of a run that never stopped`() async throws {
    try await withRunData { data in
      let undisturbed = data.configuration("expected", Self.adapt)
      try await data.run(undisturbed)
      var configuration = data.configuration("stopped", Self.adapt)
      configuration.stopAfter = 1
      try await withRunMesh(RunPlan(language: [[0..<2], [2..<3]])) {
        try await data.run(configuration, on: $0.session.stages)
      }
      configuration.resume = true
      configuration.stopAfter = 2
      try await withRunMesh(RunPlan(vision: [0..<1, 1..<3], language: [[0..<1], [1..<3]])) {
        try await data.run(configuration, on: $0.session.stages)
      }
      configuration.stopAfter = nil
      try await withRunMesh(RunPlan(language: [[0..<1], [1..<2], [2..<3]])) {
        let end = try await data.run(configuration, on: $0.session.stages)
        #expect(end.reason == .finished && end.step == 3)
      }
      #expect(try RunBits(configuration) == RunBits(undisturbed))
      try Self.requireMerged(configuration)
    }
  }

  /// The checkpoint's weights are the model's and the adapters' product, and its adapters lie
  /// beside them as PEFT reads them.
  private static func requireMerged(_ configuration: TrainingConfiguration) throws {
    let checkpoint = try #require(CheckpointFolder.latestValid(in: configuration.output).found)
    let (saved, start) = try (
      TrainingStateReader(folder: checkpoint.path), CheckpointReader(folder: configuration.model)
    )
    let downs = saved.trainedNames.filter { $0.hasSuffix(".lora_A.default.weight") }
    #expect(downs.count * 2 == saved.trainedNames.filter { $0.contains(".lora_") }.count)
    for (part, scale, modules) in [
      ("vision_model", Float(2), 4), ("language_model", Float(1.5), 7),
    ] {
      let adapter = try SafetensorsFile(
        path: "\(checkpoint.path)/adapter/\(part)/adapter_model.safetensors")
      let own = downs.filter { $0.hasPrefix("\(part).") }
      #expect(own.count == 3 * modules)
      for name in own {
        let up = name.replacing(".lora_A.", with: ".lora_B.")
        let weight =
          name
          .replacing(".base_model.model.", with: ".", maxReplacements: 1)
          .replacing(".lora_A.default", with: "")
        let a = try #require(try saved.value(of: name))
        let b = try #require(try saved.value(of: up))
        #expect(b.floats.contains { $0 != 0 })
        for (matrix, tensor) in [(name, a), (up, b)] {
          let peft = matrix.dropFirst(part.count + 1).replacing(".default", with: "")
          #expect(try adapter.tensor(String(peft)).floats == tensor.floats)
        }
        let base = try start.tensor(weight)
        let (rank, width) = (a.shape[0], a.shape[1])
        var expected = base.floats
        let (down, factors) = (a.floats, b.floats)
        for place in expected.indices {
          let (row, column) = place.quotientAndRemainder(dividingBy: width)
          for index in 0..<rank {
            expected[place] += scale * factors[row * rank + index] * down[index * width + column]
          }
        }
        #expect(try saved.model.tensor(weight).floats == expected, "\(weight)")
      }
    }
  }

  @Test func `A snapshot copies adapters, and writes what they were`() throws {
    let directory = try SocketDirectory()
    defer { directory.remove() }
    let model = try TrainingModel(in: directory)
    var options = TrainingModel.options
    options.trainsVision = false
    options.trainsProjector = false
    options.trainsLanguage = false
    options.languageLoRA = LoRA(rank: 3, alpha: 6, dropout: 0)
    let trainer = try model.trainer(options)
    _ = try TrainedBits(trainer, steps: [model.microBatches([1])])
    let stage = TrainedStage(
      slices: trainer.slices, optimizer: trainer.optimizer, updates: 1, keepsGradients: false)
    var request = SaveRequest()
    request.folder = directory.path
    request.model = [
      SavedShard(
        path: "weights.safetensors",
        names: trainer.tensors.filter { !$0.isAdapter }.map(\.name))
    ]
    request.optimizerPath = "states.safetensors"
    request.mergeLoRA = true
    request.scalarType = .float32
    let merged = trainer.tensors.compactMap { held in
      held.merged().map { (held.name, $0.elements(0..<held.tensor.count).floats) }
    }
    let snapshot = try TrainingSnapshot(stage, trainer.parameters, request)
    #expect(trainer.parameters.allSatisfy { $0.name.contains(".lora_") })
    // Value and moments of each.
    let adapters = trainer.parameters.reduce(0) { $0 + $1.value.byteCount }
    #expect(snapshot.copiedBytes == 3 * adapters)
    for parameter in trainer.parameters {
      for tensor in [parameter.value, parameter.firstMoment, parameter.secondMoment] {
        tensor.withElements(of: Float.self) { $0.update(repeating: 7) }
      }
    }
    _ = try snapshot.write()
    let written = try SafetensorsFile(path: "\(directory.path)/weights.safetensors")
    #expect(merged.count == 4 * 7)
    for (name, expected) in merged { #expect(try written.tensor(name).floats == expected) }
    let states = try SafetensorsFile(path: "\(directory.path)/states.safetensors")
    #expect(states.names.count == 3 * trainer.parameters.count)
    #expect(try states.names.allSatisfy { try !states.tensor($0).floats.contains(7) })
  }

  @Test func `A checkpoint without a parameter's moments is no place to go on from`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("run") { $0.stopAfter = 1 }
      try await data.run(configuration)
      let path = try #require(CheckpointFolder.latestValid(in: configuration.output).found).path
      #expect(rename("\(path)/optimizer", "\(path)/elsewhere") == 0)
      let stages = InProcessStages(model: data.model, threads: 1)
      let error = await #expect(throws: CheckpointError.self) {
        try await stages.prepare(
          TrainingPreparation(options: TrainingOptions(configuration), checkpoint: path))
      }
      guard case .missingState(path, let parameter, let state)? = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(state == "exp_avg.\(parameter)")
    }
  }
}
