import Checkpoint
import InternVL
import Messages
import StageRuntime
import Support
import Synchronization
import Tensors
import Testing
import Training
import TrainingData
import Transport

@testable import Sequencer

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// How runs begin and end: whose folder it is, what they refuse, and what they leave behind.
@Suite(.timeLimit(.minutes(2)), .serialized) struct RunEndTests {
  @Test func `A folder that a run writes to is no other run's`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("taken")
      let refusal = Mutex("")
      try await data.run(configuration) { event in
        guard case .started = event else { return }
        var other = configuration
        other.resume = true
        let text = await message { try await data.run(other) }
        refusal.withLock { $0 = text }
      }
      #expect(refusal.withLock { $0 }.contains("process \(getpid()) writes a run to"))
      #expect(try RunBits(configuration) == (try await data.expected()))
      // With its end the folder is free, and as it would be without a lock.
      #expect(access("\(configuration.output)/run.lock", F_OK) != 0)
      var resumed = configuration
      resumed.resume = true
      #expect(try await data.run(resumed).step == 3)
    }
  }

  @Test func `A lock file that nobody holds is no lock`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("left") { $0.maxSteps = 1 }
      mkdir(configuration.output, 0o755)
      try data.write("left/run.lock", "1\n")
      #expect(try await data.run(configuration).step == 1)
    }
  }

  @Test func `A checkpoint with another byte is named and passed over`() async throws {
    try await withRunData { data in
      var configuration = data.configuration("byte") {
        $0.saveSteps = 1
        $0.stopAfter = 2
      }
      try await data.run(configuration)
      let file = try #require(
        fopen("\(configuration.output)/checkpoint-2/model.safetensors", "r+"))
      fseek(file, -5, SEEK_END)
      fputc(0x7F, file)
      fclose(file)
      configuration.resume = true
      configuration.stopAfter = nil
      let events = RunEvents()
      let stages = Failing(InProcessStages(model: data.model, threads: 1), step: 2, .unavailable)
      try await data.run(configuration, on: stages, events: events)
      #expect(events.warnings.contains { $0.contains("checkpoint-2") && $0.contains("SHA-256") })
      // Neither does a lost stage lead back to it.
      #expect(events.recovered == [1])
      #expect(try RunBits(configuration) == (try await data.expected()))
    }
  }

  @Test func `A run is resumed with what it began with, or says what differs`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("same") { $0.stopAfter = 1 }
      try await data.run(configuration)
      func refusal(_ change: (inout TrainingConfiguration) -> Void) async -> String {
        var other = configuration
        other.resume = true
        change(&other)
        return await message { [other] in try await data.run(other) }
      }
      let rates = await refusal {
        $0.learningRate = 0.5
        $0.globalBatchSize = 4
      }
      #expect(rates.contains("learning_rate 0.001, not 0.5"), "\(rates)")
      #expect(rates.contains("global_batch_size 8, not 4"), "\(rates)")
      #expect(!rates.contains("max_steps"), "\(rates)")
      let model = await refusal { $0.model = GoldenModel.sharded.folder }
      #expect(model.contains("another model") && !model.contains("data"), "\(model)")
      try data.write(
        "data.jsonl",
        #"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#)
      let other = await refusal { $0.skipBad = false }
      #expect(other.contains("other data"), "\(other)")
    }
  }

  @Test func `What was learnt and is not on disk is not taken for saved`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("full") { $0.onDiskFull = .goOn }
      let stages = Failing(InProcessStages(model: data.model, threads: 1), isFull: true)
      let events = RunEvents()
      let end = try await data.run(configuration, on: stages, events: events)
      #expect(end.step == 3 && !end.isSaved && end.checkpoint == nil)
      #expect(events.all.last == .ended(end))
      #expect(try TrainingEvent(json: TrainingEvent.ended(end).json) == .ended(end))
    }
  }

  @Test func `A run that ends before its first step leaves nothing`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("deep/er")
      let stages = InProcessStages(model: data.model, device: "none", threads: 1)
      await #expect(throws: (any Error).self) { try await data.run(configuration, on: stages) }
      #expect(access("\(data.path)/deep", F_OK) != 0)

      let run = try TrainingRun(
        configuration, stages: InProcessStages(model: data.model, threads: 1),
        source: try await DataSteps.check(configuration).steps, logger: .quiet
      ) { _ in }
      run.endEarly()
      let end = try await run.run()
      #expect(end.step == 0 && end.reason == .interrupted && end.isSaved)
      #expect(CheckpointFolder.all(in: configuration.output).isEmpty)
      #expect(try await data.run(configuration).step == 3)
    }
  }

  @Test func `Places that cannot be written are refused before the first step`() async throws {
    try await withRunData { data in
      try data.write("file", "")
      let file = data.configuration("file")
      #expect(await message { try await data.run(file) }.contains("a file, not a folder"))
      for trace in ["\(data.path)/nowhere/trace.json", data.path] {
        let configuration = data.configuration("traced") { $0.trace = trace }
        #expect(await message { try await data.run(configuration) }.contains("\(trace) cannot be"))
        #expect(access(configuration.output, F_OK) != 0)
      }
    }
  }

  @Test func `A run that fails leaves its trace`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("failed") { $0.trace = "\(data.path)/trace.json" }
      let stages = Failing(InProcessStages(model: data.model, threads: 1), step: 2, .internal)
      await #expect(throws: RPCError.self) { try await data.run(configuration, on: stages) }
      let trace = try Trace(chromeJSON: try RunFile.read("\(data.path)/trace.json"))
      #expect(Set(trace.spans.map(\.step)) == [1])
    }
  }

  @Test func `A batch larger than the data is remarked on`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("large") {
        $0.globalBatchSize = 16
        $0.maxSteps = 1
      }
      let events = RunEvents()
      try await data.run(configuration, events: events)
      #expect(events.warnings.contains { $0.contains("is 16, and the samples are 8") })
    }
  }

  @Test func `A gateway that goes away ends a run with a checkpoint`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("down") { $0.maxSteps = 1000 }
      try await withMesh(MeshPlan()) { mesh in
        let client = TrainingClient(mesh.gateway.endpoint)
        let service = mesh.gateway.service
        let isFirst = Once()
        let events = RunEvents()
        try await client.train(configuration) { event in
          events.add(event)
          if case .step = event, isFirst.take() {
            Task { await service.endTraining(within: .seconds(60)) }
          }
        }
        guard case .ended(let end)? = events.all.last else {
          Issue.record("\(events.all)")
          return
        }
        #expect(end.reason == .interrupted && end.step < 1000)
        #expect(CheckpointFolder.latestValid(in: configuration.output).found?.step == end.step)
        client.close()
      }
    }
  }

  @Test func `A run is ended at once where that is asked for`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("cancelled") { $0.maxSteps = 1000 }
      try await withMesh(MeshPlan()) { mesh in
        let client = TrainingClient(mesh.gateway.endpoint)
        let other = TrainingClient(mesh.gateway.endpoint)
        let isFirst = Once()
        let error = await status {
          try await client.train(configuration) { event in
            if case .step = event, isFirst.take() { Task { try? await other.cancel() } }
          }
        }
        #expect(error?.code == .cancelled)
        #expect(CheckpointFolder.all(in: configuration.output).isEmpty)
        client.close()
        other.close()
      }
    }
  }

  @Test(arguments: [(1, 1, true), (2, 1, false), (1, 2, false)])
  func `Embeddings that are also the head need one language stage`(
    processes: Int, chunks: Int, fits: Bool
  ) throws {
    let placement = StagePlacement(
      vision: [], projector: .init(name: "projector"),
      language: (0..<processes).map { .init(name: "language-\($0)", chunks: chunks) })
    let untied = try ModelConfiguration.load(folder: GoldenModel.tiny.folder)
    try placement.requireFit(untied, TrainingOptions())
    let model = try ModelConfiguration.load(folder: Fixtures.path("variants/tied/checkpoint"))
    var options = TrainingOptions()
    if fits {
      try placement.requireFit(model, options)
    } else {
      let error = #expect(throws: TrainingRunError.self) {
        try placement.requireFit(model, options)
      }
      #expect("\(try #require(error))".contains("tied embeddings: use one language stage"))
    }
    options.trainsLanguage = false
    try placement.requireFit(model, options)
  }

  @Test func `Interleaving needs two language stages`() throws {
    var configuration = TrainingConfiguration()
    configuration.schedule = .interleaved
    configuration.virtualStages = 2
    var placement = StagePlacement(
      vision: [], projector: .init(name: "projector"), language: [.init(name: "a", chunks: 2)])
    let error = #expect(throws: TrainingRunError.self) {
      try placement.requireFit(configuration)
    }
    #expect("\(try #require(error))".contains("needs at least 2 language stages"))
    placement.language.append(.init(name: "b", chunks: 2))
    try placement.requireFit(configuration)
  }

  @Test func `A probe has every parameter of the model's folder`() async throws {
    let model = GoldenModel.tiny.folder
    let probe = TrainingProbe(
      model: model, samples: Fixtures.path("golden/v12-tiny/samples.jsonl"))
    let tensors = try await probe.tensors(InProcessStages(model: model, threads: 1))
    let names = Set(tensors.map(\.name))
    for name in try CheckpointReader(folder: model).names {
      #expect(names.contains("grad.\(name)") && names.contains("after.\(name)"), "\(name)")
    }
    #expect(names.count == tensors.count)
  }

  @Test(arguments: [("", "has no samples"), ("{}\n", "mine.jsonl")])
  func `A probe names the file that it was given`(text: String, expected: String) async throws {
    try await withRunData { data in
      try data.write("mine.jsonl", text)
      let probe = TrainingProbe(model: data.model, samples: "\(data.path)/mine.jsonl")
      let text = await message {
        _ = try await probe.tensors(InProcessStages(model: data.model, threads: 1))
      }
      #expect(text.contains(expected) && text.contains("\(data.path)/mine.jsonl"), "\(text)")
      #expect(!text.contains("chiasm-probe"), "\(text)")
    }
  }
}

/// What `body` says when it fails; empty when it does not.
private func message(_ body: () async throws -> Void) async -> String {
  do {
    try await body()
    return ""
  } catch {
    return "\(error)"
  }
}

private func message(_ body: () async throws -> TrainingEnd) async -> String {
  await message { _ = try await body() }
}

/// Stages that fail once, in a step; or that have no room for any checkpoint.
private actor Failing: TrainingStages {
  private let stages: InProcessStages
  private var step: UInt64?
  private let code: StatusCode
  private let isFull: Bool

  init(
    _ stages: InProcessStages, step: UInt64? = nil, _ code: StatusCode = .internal,
    isFull: Bool = false
  ) {
    self.stages = stages
    self.step = step
    self.code = code
    self.isFull = isFull
  }

  func placement() -> StagePlacement { stages.placement() }
  func prepare(_ preparation: TrainingPreparation) async throws -> PreparedStages {
    try await stages.prepare(preparation)
  }
  func step(_ work: StepWork) async throws -> StepOutcome {
    if work.step == step {
      step = nil
      throw RPCError(code, "language-0: it fails")
    }
    return try await stages.step(work)
  }
  func update(_ update: ParameterUpdate) async throws { try await stages.update(update) }
  func abandon(step: UInt64) async { await stages.abandon(step: step) }
  func save(_ work: SaveWork) async throws -> Task<Int, any Error> {
    if isFull { return Task { throw NoRoom("no room for 5 bytes") } }
    return try await stages.save(work)
  }
  func fetch(_ names: [String], _ what: FetchedTensor) async throws -> [String: Tensor] {
    try await stages.fetch(names, what)
  }
  func ready(within duration: Duration) {}
}
