import Support
import Synchronization
import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

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

  @Test func `files of several stages are numbered through, and one alone has no number`() throws {
    let run = try SmallRun(selectLayer: -2)
    let layout = try run.layout(3, shardBytes: 2000)
    let count = layout.modelFiles.count
    let digits = count < 10 ? "0000\(count)" : "000\(count)"
    #expect(layout.modelFiles.first?.path == "model-00001-of-\(digits).safetensors")
    #expect(layout.modelFiles.last?.path == "model-\(digits)-of-\(digits).safetensors")
    #expect(
      layout.optimizerFiles.map(\.path)
        == (1...3).map { "optimizer/optimizer-0000\($0)-of-00003.safetensors" })
    let copied: [String] = layout.copied.flatMap(\.names)
    #expect(!copied.isEmpty && copied.allSatisfy { $0.contains("encoder.layers.2.") })
    let names: [String] = layout.modelFiles.flatMap(\.names)
    #expect(names.count == Set(names).count)
    #expect(Set(names) == Set(WeightNames.all(run.configuration).map(\.name)))

    let single = try SmallRun().layout(1)
    #expect(single.modelFiles.map(\.path) == ["model.safetensors"])
    #expect(single.optimizerFiles.map(\.path) == ["optimizer/optimizer.safetensors"])
  }

  @Test func `what two stages hold is written once, and what is frozen has no state`() throws {
    let run = try SmallRun()
    let all = try run.stages(1) { $0.hasPrefix("mlp1.") }[0]
    let layout = try CheckpointLayout(
      stages: [all, Array(all.suffix(3))], configuration: run.configuration, source: run.source)
    #expect(layout.shares[1].model.isEmpty && layout.shares[1].optimizer == nil)
    let states: [String] = layout.optimizerFiles.flatMap(\.names)
    #expect(states.count == 18)
    #expect(states.allSatisfy { $0.contains("mlp1.") })
    let saved = try run.save(1, layout: layout)
    #expect(
      try TrainingStateReader(folder: saved.path).trainedNames
        == all.map(\.name).filter { $0.hasPrefix("mlp1.") }.sorted())
  }

  @Test func `adapters live in the optimizer's files alone`() throws {
    let run = try SmallRun(scalarType: .float32)
    let name = "language_model.base_model.model.model.layers.0.q.lora_A.default.weight"
    let held =
      try run.stages(1) { _ in false }[0] + [
        .init(name: name, shape: [2, 8], storedType: .float32, isTrained: true)
      ]
    let layout = try CheckpointLayout(
      stages: [held], configuration: run.configuration, source: run.source)
    #expect(!layout.modelFiles.flatMap(\.names).contains(name))
    #expect(
      layout.optimizerFiles.flatMap(\.names)
        == ["exp_avg.\(name)", "exp_avg_sq.\(name)", "master.\(name)"])
    let saved = try run.save(1, layout: layout)
    let reader = try TrainingStateReader(folder: saved.path)
    #expect(try reader.value(of: name)?.floats == SmallRun.value(name, [2, 8]).floats)
  }

  @Test func `adapters are besides written alone, and belong to the checkpoint`() throws {
    let run = try SmallRun()
    let parts = ["vision_model.base_model.model.encoder", "language_model.base_model.model.model"]
    let names = parts.map { "\($0).layers.1.proj.lora_A.default.weight" }
    let held =
      try run.stages(1) { $0.hasPrefix("mlp1.") }[0]
      + names.map { .init(name: $0, shape: [2, 8], storedType: .float32, isTrained: true) }
    let layout = try CheckpointLayout(
      stages: [held], configuration: run.configuration, source: run.source)
    let writer = try CheckpointWriter.begin(
      output: run.output, step: 1, layout: layout, source: run.source)
    try SmallRun.writeShares(writer)
    let saved = try writer.commit(
      state: TrainerState(globalStep: 1),
      adapters: ["vision_model", "language_model"].map {
        AdapterFolder(part: $0, rank: 2, alpha: 4, dropout: 0, baseModel: "base")
      })
    for (part, name) in zip(["vision_model", "language_model"], names) {
      let path = "adapter/\(part)/adapter_model.safetensors"
      let file = try SafetensorsFile(path: "\(saved.path)/\(path)")
      let own = name.dropFirst(part.count + 1).replacing(".default", with: "")
      #expect(file.names == [String(own)])
      #expect(try file.tensor(String(own)).floats == SmallRun.value(name, [2, 8]).floats)
      let manifest = try CheckpointManifest.load(folder: saved.path)
      #expect(manifest.files.contains { $0.path == path && $0.digest != nil })
      #expect(manifest.files.contains { $0.path == "adapter/\(part)/adapter_config.json" })
    }
    try saved.check(digests: true)
    CheckpointFolder.remove(saved.path)
    #expect(folderEntries(run.output) == [])
  }

  @Test func `a parameter goes on from its master or from a weight in float32 alone`() throws {
    let run = try SmallRun(scalarType: .bfloat16)
    let weights = try run.stages(1)[0].map { Weight($0.name, $0.shape) }
    let exact = try run.save(1, layout: run.layout(1, saveType: .float32), saveType: .float32)
    try TrainingStateReader(folder: exact.path).require(weights)
    let rounded = try run.save(2, layout: run.layout(1))
    removeFolder("\(rounded.path)/optimizer")
    #expect(rename("\(exact.path)/optimizer", "\(rounded.path)/optimizer") == 0)
    #expect(
      throws: CheckpointError.missingState(
        folder: rounded.path, parameter: weights[4].name, state: "master.\(weights[4].name)")
    ) { try TrainingStateReader(folder: rounded.path).require([weights[4]]) }
  }

  @Test(arguments: [ScalarType.float32, .bfloat16])
  func `the saved type may be another`(type: ScalarType) throws {
    let run = try SmallRun(scalarType: type == .float32 ? .bfloat16 : .float32, selectLayer: -2)
    let layout = try run.layout(2, saveType: type)
    let saved = try run.save(4, layout: layout, saveType: type)
    let reader = try TrainingStateReader(folder: saved.path)
    for name in reader.model.names { #expect(try reader.model.entry(name).scalarType == type) }
    #expect(try ModelConfiguration.load(folder: saved.path).torchType == type.rawValue)
    let held = try run.stages(1)[0][5]
    #expect(
      try reader.value(of: held.name)?.floats == SmallRun.value(held.name, held.shape).floats)
    let other = try ModelConfiguration.load(folder: saved.path)
    #expect(
      other.vision == run.configuration.vision && other.language == run.configuration.language)
  }

  @Test func `companions come along, and config.json stays the same bytes`() throws {
    let run = try SmallRun()
    try run.folder.write("model/modeling_internvl_chat.py", "pass\n")
    try run.folder.write("model/pytorch_model.bin.index.json", "{}")
    let saved = try run.save(1, layout: run.layout(2))
    let names = Set(folderEntries(saved.path))
    #expect(
      names.isSuperset(of: [
        "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "preprocessor_config.json", "generation_config.json",
        "modeling_internvl_chat.py", "trainer_state.json", "run_state.json", "manifest.json",
      ]))
    #expect(!names.contains("pytorch_model.bin.index.json"))
    #expect(
      try Digest.sha256(file: "\(saved.path)/config.json") == run.configuration.digest)
  }

  @Test func `only one writer writes a checkpoint`() throws {
    let run = try SmallRun()
    let layout = try run.layout(1)
    let writer = try CheckpointWriter.begin(
      output: run.output, step: 1, layout: layout, source: run.source)
    #expect(throws: CheckpointError.beingWritten(folder: writer.folder)) {
      try CheckpointWriter.begin(
        output: run.output, step: 1, layout: layout, source: run.source)
    }
    let other = try CheckpointWriter.begin(
      output: run.output, step: 2, layout: layout, source: run.source)
    try SmallRun.writeShares(writer)
    try SmallRun.writeShares(other)
    _ = try other.commit(state: TrainerState(globalStep: 2))
    _ = try writer.commit(state: TrainerState(globalStep: 1))
    #expect(CheckpointFolder.all(in: run.output).map(\.step) == [1, 2])
    for folder in CheckpointFolder.all(in: run.output) { try folder.check(digests: true) }
  }

  @Test func `a checkpoint of the same step is replaced`() throws {
    let run = try SmallRun()
    let first = try run.save(1, layout: run.layout(3))
    let second = try run.save(1, layout: run.layout(1))
    #expect(first == second)
    try second.check(digests: true)
    #expect(folderEntries(run.output) == ["checkpoint-1"])
    #expect(!fileExists("\(second.path)/model.safetensors.index.json"))
  }

  @Test func `a stage's file that is missing or holds something else is no checkpoint`() throws {
    let run = try SmallRun()
    let old = try run.save(1, layout: run.layout(2))
    let layout = try run.layout(2)
    func attempt(_ change: (CheckpointWriter) throws -> Void) throws -> CheckpointError? {
      let writer = try CheckpointWriter.begin(
        output: run.output, step: 2, layout: layout, source: run.source)
      try SmallRun.writeShares(writer)
      try change(writer)
      do { _ = try writer.commit(state: TrainerState(globalStep: 2)) } catch {
        return error as? CheckpointError
      }
      return nil
    }
    let model = layout.modelFiles[1]
    let state = layout.optimizerFiles[0]
    for path in [model.path, state.path] {
      let error = try attempt { unlink("\($0.folder)/\(path)") }
      guard case .missingFile(let missing)? = error else {
        Issue.record("\(String(describing: error))")
        continue
      }
      #expect(missing.hasSuffix(path))
    }
    var error = try attempt {
      try ShardFile.write(
        model.entries.map { ($0.name, SmallRun.value($0.name, $0.shape), .float32) },
        to: "\($0.folder)/\(model.path)")
    }
    guard case .unexpectedTensor(_, model.entries[0].name, _, _)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    error = try attempt {
      try ShardFile.write(
        model.entries.dropLast().map {
          ($0.name, SmallRun.value($0.name, $0.shape), $0.scalarType)
        }, to: "\($0.folder)/\(model.path)")
    }
    guard case .missingTensor(_, model.entries.last?.name, _)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(folderEntries(run.output) == ["checkpoint-1"])
    try old.check(digests: true)
    #expect(try attempt { _ in } == nil)
  }

  @Test func `an export has no state and may have any name`() throws {
    let run = try SmallRun()
    let layout = try CheckpointLayout(
      stages: run.stages(2), configuration: run.configuration, source: run.source,
      saveType: .float32, withOptimizer: false)
    let path = "\(run.folder.path)/exports/final"
    let writer = try CheckpointWriter.begin(export: path + "/", layout: layout, source: run.source)
    try SmallRun.writeShares(writer)
    #expect(try writer.commit(state: nil, saveType: .float32).path == path)
    try CheckpointReader(folder: path).verify(ModelConfiguration.load(folder: path))
    #expect(!fileExists("\(path)/optimizer") && !fileExists("\(path)/manifest.json"))
    #expect {
      try CheckpointWriter.begin(export: path, layout: layout, source: run.source)
    } throws: { error in
      guard case .folderInUse(path, _)? = error as? CheckpointError else { return false }
      return true
    }
  }

  @Test func `an export takes nobody's folder`() throws {
    let run = try SmallRun()
    let layout = try CheckpointLayout(
      stages: run.stages(1), configuration: run.configuration, source: run.source,
      withOptimizer: false)
    _ = try run.folder.makeFolder("tmp-final")
    try run.folder.write("tmp-final/file", "theirs")
    let path = "\(run.folder.path)/final"
    let writer = try CheckpointWriter.begin(export: path, layout: layout, source: run.source)
    try SmallRun.writeShares(writer)
    // The folder fills meanwhile.
    _ = try run.folder.makeFolder("final")
    try run.folder.write("final/file", "theirs")
    #expect(throws: CheckpointError.folderInUse(folder: path, file: "file")) {
      try writer.commit(state: nil)
    }
    #expect(run.folder.names == ["final", "model", "tmp-final"])
    #expect(folderEntries(path) == ["file"])
    #expect(folderEntries("\(run.folder.path)/tmp-final") == ["file"])
  }

  @Test func `a writer that was given up leaves the next one's files alone`() throws {
    let run = try SmallRun()
    var first: CheckpointWriter? = try CheckpointWriter.begin(
      output: run.output, step: 1, layout: run.layout(1), source: run.source)
    first?.abandon()
    let second = try CheckpointWriter.begin(
      output: run.output, step: 1, layout: run.layout(1), source: run.source)
    try SmallRun.writeShares(second)
    first?.abandon()
    first = nil
    try second.commit(state: TrainerState(globalStep: 1)).check(digests: true)
  }

  @Test func `a commit that is cancelled at any piece leaves the checkpoint before`() throws {
    let run = try SmallRun(selectLayer: -2)
    let old = try run.save(1, layout: run.layout(2, shardBytes: 1000))
    let layout = try run.layout(2, shardBytes: 1000)
    var pieces = 0
    while true {
      let asked = Atomic(0)
      let limit = pieces
      let writer = try CheckpointWriter.begin(
        output: run.output, step: 1, layout: layout, source: run.source)
      try SmallRun.writeShares(writer)
      do {
        _ = try writer.commit(state: TrainerState(globalStep: 1)) {
          asked.add(1, ordering: .relaxed).newValue > limit
        }
        break
      } catch {
        #expect(error is CancellationError)
        writer.abandon()
      }
      #expect(folderEntries(run.output) == ["checkpoint-1"])
      try old.check(digests: true)
      pieces += 1
    }
    // Tensors that are copied, a piece of every file, the end.
    let files = try CheckpointManifest.load(folder: old.path).files
    #expect(pieces == layout.copied.flatMap(\.entries).count + files.count + 1)
    #expect(files.allSatisfy { $0.digest != nil })
  }

  @Test func `a companion that cannot be read, or is too large, is no checkpoint`() throws {
    let run = try SmallRun()
    let layout = try run.layout(1)
    let path = "\(run.model)/tokenizer.model"
    func begin() throws {
      _ = try CheckpointWriter.begin(
        output: run.output, step: 1, layout: layout, source: run.source)
    }
    let bytes = try readFile(path, limit: 1 << 20)
    #expect(truncate(path, off_t(64 << 20) + 1) == 0)
    let tooLarge = CheckpointError.tooLarge(
      file: path, byteCount: (64 << 20) + 1, limit: 64 << 20)
    #expect(throws: tooLarge) { try begin() }
    try AtomicFile.write(bytes, to: path)
    let writer = try CheckpointWriter.begin(
      output: run.output, step: 1, layout: layout, source: run.source)
    try SmallRun.writeShares(writer)
    #expect(unlink(path) == 0 && symlink("/nonexistent", path) == 0)
    #expect(throws: CheckpointError.missingFile(path)) {
      try writer.commit(state: TrainerState(globalStep: 1))
    }
    writer.abandon()
    #expect(throws: CheckpointError.missingFile(path)) { try begin() }
    // A folder is no companion, whatever its name.
    #expect(unlink(path) == 0 && mkdir(path, 0o755) == 0)
    try begin()
  }

  @Test func `a disk without room is known before anything is written`() throws {
    let run = try SmallRun()
    let old = try run.save(1, layout: run.layout(1))
    var held = try run.stages(1)[0]
    held.append(
      .init(name: "adapter", shape: [1 << 30, 1 << 20], storedType: .float32, isTrained: true))
    let layout = try CheckpointLayout(
      stages: [held], configuration: run.configuration, source: run.source)
    #expect {
      try CheckpointWriter.begin(
        output: run.output, step: 2, layout: layout, source: run.source)
    } throws: { error in
      guard case .noRoom(run.output, let needed, let free)? = error as? CheckpointError else {
        return false
      }
      return needed > 3 << 52 && free > 0 && "\(needed)".count > 10
    }
    #expect(folderEntries(run.output) == ["checkpoint-1"])
    try old.check()
  }

  @Test func `a disk that fills up leaves the checkpoint before`() async {
    await #expect(processExitsWith: .success) {
      let run = try SmallRun()
      let old = try run.save(1, layout: run.layout(1))
      signal(SIGXFSZ, SIG_IGN)
      var limit = rlimit(rlim_cur: 10_000, rlim_max: 10_000)
      precondition(setrlimit(__rlimit_resource_t(1), &limit) == 0)
      let layout = try run.layout(1)
      do {
        let writer = try CheckpointWriter.begin(
          output: run.output, step: 2, layout: layout, source: run.source)
        try SmallRun.writeShares(writer)
        preconditionFailure("written beyond the limit")
      } catch CheckpointError.diskFull(let file, let byteCount) {
        precondition(file.hasSuffix("tmp-checkpoint-2/model.safetensors"))
        precondition(byteCount > 10_000)
      }
      precondition(folderEntries(run.output) == ["checkpoint-1"])
      try old.check(digests: true)
    }
  }

  @Test func `a process that ends in mid-write leaves what the next one removes`() async throws {
    let run = try SmallRun()
    let old = try run.save(1, layout: run.layout(1))
    let (model, output) = (run.model, run.output)
    await #expect(processExitsWith: .exitCode(9)) {
      [model = model as String, output = output as String] in
      let source = try CheckpointReader(folder: model)
      let layout = try CheckpointLayout(
        stages: [
          source.names.map {
            .init(
              name: $0, shape: try source.tensor($0).shape, storedType: .bfloat16,
              isTrained: true)
          }
        ], configuration: ModelConfiguration.load(folder: model), source: source)
      let writer = try CheckpointWriter.begin(
        output: output, step: 2, layout: layout, source: source)
      try SmallRun.writeShares(writer)
      _exit(9)
    }
    #expect(folderEntries(run.output) == ["checkpoint-1", "tmp-checkpoint-2"])
    #expect(CheckpointFolder.latestValid(in: run.output).found == old)
    try run.save(2, layout: run.layout(1))
    #expect(folderEntries(run.output) == ["checkpoint-1", "checkpoint-2"])
  }
}
