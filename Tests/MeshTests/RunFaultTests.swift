import Checkpoint
import Messages
@testable import Sequencer
import Tensors
import Testing
import Training
import TrainingData
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What runs do about numbers that are none, damaged checkpoints, full disks and lost stages.
@Suite(.timeLimit(.minutes(2)), .serialized) struct RunFaultTests {
  @Test func `A loss that is no number stops the run and names the sample`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("nan")
      let source = Poisoned(try await DataSteps.check(configuration).steps, step: 2)
      var message = ""
      do {
        try await data.run(configuration, source: source)
      } catch let error as TrainingRunError {
        message = "\(error)"
      }
      #expect(message.contains("step 2"))
      #expect(message.contains("data.jsonl:"))
      let checkpoint = try #require(CheckpointFolder.latestValid(in: configuration.output).found)
      #expect(checkpoint.step == 1)
      // The state is good: the run can go on with good data.
      var resumed = configuration
      resumed.resume = true
      try await data.run(resumed)
      #expect(try RunBits(resumed) == (try await data.expected()))
    }
  }

  @Test func `Such a step is skipped where that is asked for`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("nan") { $0.onNotFinite = .skip }
      let source = Poisoned(try await DataSteps.check(configuration).steps, step: 2)
      let events = RunEvents()
      try await data.run(configuration, source: source, events: events)
      let checkpoint = try #require(CheckpointFolder.latestValid(in: configuration.output).found)
      let state = try TrainerState.load(folder: checkpoint.path)
      #expect(state.globalStep == 3 && state.updates == 2)
      let log = try RunBits.log(configuration)
      #expect(log.map(\.step) == [1, 2, 3])
      #expect(log[1].notes.contains { $0.name == "skipped" && $0.text.contains("data.jsonl:") })
      #expect(log[2].loss.isFinite)
      #expect(events.warnings.contains { $0.contains("step 2 is skipped") })
    }
  }

  @Test func `A torn checkpoint is passed over`() async throws {
    try await withRunData { data in
      var configuration = data.configuration("torn") {
        $0.saveSteps = 1
        $0.stopAfter = 2
      }
      try await data.run(configuration)
      unlink("\(configuration.output)/checkpoint-2/trainer_state.json")
      configuration.resume = true
      configuration.stopAfter = nil
      let events = RunEvents()
      try await data.run(configuration, events: events)
      #expect(events.warnings.contains { $0.contains("checkpoint-2") })
      #expect(try RunBits(configuration) == (try await data.expected()))
    }
  }

  @Test func `A folder with checkpoints is not begun anew`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("used") { $0.maxSteps = 1 }
      try await data.run(configuration)
      await #expect(throws: TrainingRunError.self) { try await data.run(configuration) }
      var other = configuration
      other.resume = true
      other.learningRate = 0.5
      await #expect(throws: TrainingRunError.self) { try await data.run(other) }
    }
  }

  @Test(arguments: DiskFullPolicy.allCases)
  func `A full disk ends the run, or not, as asked for`(_ policy: DiskFullPolicy) async throws {
    try await withRunData { data in
      let configuration = data.configuration("full") {
        $0.saveSteps = 2
        $0.onDiskFull = policy
      }
      let stages = Faulty(InProcessStages(model: data.model, threads: 1), fullAtSave: 1)
      let events = RunEvents()
      if policy == .goOn {
        let end = try await data.run(configuration, on: stages, events: events)
        #expect(end.step == 3 && end.checkpoint != nil)
        #expect(events.warnings.contains { $0.contains("no room") })
        #expect(try RunBits(configuration) == (try await data.expected()))
      } else {
        await #expect(throws: TrainingRunError.self) {
          try await data.run(configuration, on: stages)
        }
        #expect(CheckpointFolder.all(in: configuration.output).isEmpty)
      }
    }
  }

  @Test(arguments: DiskFullPolicy.allCases)
  func `A full disk costs lines of the log, or ends the run`(
    _ policy: DiskFullPolicy
  ) async throws {
    try await withRunData { data in
      let configuration = data.configuration("log") { $0.onDiskFull = policy }
      let path = "\(try #require(RealPath.of(data.path)))/log/train_log.jsonl"
      let events = RunEvents()
      var message = ""
      do {
        try await data.run(configuration, events: events) { event in
          if case .started = event { fill(path) }
        }
      } catch let error as TrainingRunError {
        message = "\(error)"
      }
      if policy == .goOn {
        #expect(message == "")
        #expect(events.warnings.filter { $0.contains("train_log.jsonl") }.count == 1)
        #expect(CheckpointFolder.latestValid(in: configuration.output).found?.step == 3)
      } else {
        #expect(message.contains("train_log.jsonl: no room") && message.contains("--resume"))
      }
    }
  }

  @Test func `A checkpoint that a stage cannot write ends the run at once`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("closed") { $0.saveSteps = 1 }
      let stages = Faulty(
        InProcessStages(model: data.model, threads: 1),
        saves: [1: RPCError(.failedPrecondition, "language-0: permission denied")])
      let events = RunEvents()
      var message = ""
      do {
        try await data.run(configuration, on: stages, events: events)
      } catch let error as RPCError {
        message = error.message
      }
      #expect(message.contains("permission denied"))
      // What was done is saved by another try.
      let last = CheckpointFolder.latestValid(in: configuration.output).found?.step
      #expect(last == events.steps.last)
      #expect((events.steps.last ?? 9) < 3)
    }
  }

  @Test(arguments: [StatusCode.outOfRange, .aborted])
  func `A checkpoint that came too late or met another is written after the next step`(
    _ code: StatusCode
  ) async throws {
    try await withRunData { data in
      let configuration = data.configuration("late") {
        $0.saveSteps = 2
        $0.maxSteps = 6
      }
      let stages = Faulty(
        InProcessStages(model: data.model, threads: 1), saves: [1: RPCError(code, "later")])
      let events = RunEvents()
      let end = try await data.run(configuration, on: stages, events: events)
      #expect(end.step == 6)
      #expect(!events.saved.contains(2) && events.saved.last == 6)
      #expect(events.saved.contains(3) || events.saved.contains(4))
    }
  }

  @Test func `A late copy in memory brings no checkpoint that was not planned`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("copies") { $0.replicaSnapshots = true }
      let stages = Faulty(
        InProcessStages(model: data.model, threads: 1), saves: [1: RPCError(.outOfRange, "late")])
      let events = RunEvents()
      try await data.run(configuration, on: stages, events: events)
      #expect(events.saved == [3])
    }
  }

  @Test func `Stages that are lost while the run begins are waited for`() async throws {
    try await withRunData { data in
      let stages = Faulty(InProcessStages(model: data.model, threads: 1), lostPreparations: 3)
      let end = try await data.run(data.configuration("begin"), on: stages)
      #expect(end.reason == .finished)
    }
  }

  @Test func `Stages that never come are not taken for a lost gateway`() async throws {
    try await withRunData { data in
      var limits = Sequencer.TrainingLimits()
      limits.recoveryTime = .milliseconds(300)
      let stages = Faulty(InProcessStages(model: data.model, threads: 1), lostPreparations: 999)
      var code: StatusCode?
      do {
        try await data.run(data.configuration("never"), on: stages, limits: limits)
      } catch let error as TrainingRunError {
        code = error.statusCode
      }
      #expect(code == .aborted)
    }
  }

  @Test func `Data that fails in mid-run leaves the steps that were done`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("vanished") { $0.trace = "\(data.path)/trace.json" }
      let source = Vanishing(source: try await DataSteps.check(configuration).steps, step: 3)
      await #expect(throws: Vanishing.Gone.self) {
        try await data.run(configuration, source: source)
      }
      let checkpoint = try #require(CheckpointFolder.latestValid(in: configuration.output).found)
      #expect(checkpoint.step == 2)
      #expect(try RunFile.read("\(data.path)/trace.json").count > 100)
    }
  }

  @Test func `Of several failures the cause is told, not what came of it`() {
    let echo = RPCError(.aborted, "step 1 ended")
    let cancelled = RPCError(.cancelled, "cancelled")
    let loss = RPCError(.unavailable, "gone")
    let cause = RPCError(.invalidArgument, "no such token")
    let cases: [([any Error], RPCError?)] = [
      ([echo, cancelled, cause], cause), ([cancelled, loss, echo], loss), ([loss, cause], cause),
      ([cancelled, echo], cancelled), ([], nil), ([CancellationError(), loss], loss),
    ]
    for (failures, expected) in cases {
      #expect((failures.cause as? RPCError)?.message == expected?.message)
    }
  }

  @Test func `A gateway refuses to train another model than its stages hold`() async throws {
    try await withRunData { data in
      let copy = "\(data.path)/copy"
      mkdir(copy, 0o755)
      for name in folderEntries(data.model) {
        symlink("\(data.model)/\(name)", "\(copy)/\(name)")
      }
      let link = "\(data.path)/link"
      symlink(data.model, link)
      try await withMesh(MeshPlan()) { mesh in
        let client = TrainingClient(mesh.gateway.endpoint)
        let error = await status {
          try await client.train(data.configuration("other") { $0.model = copy }) { _ in }
        }
        #expect(error?.code == .failedPrecondition)
        #expect(error?.message.contains(copy) == true)
        let same = data.configuration("same") {
          $0.model = link
          $0.maxSteps = 1
        }
        try await client.train(same) { _ in }
        client.close()
      }
    }
  }

  @Test func `A step that never succeeds ends the run`() async throws {
    try await withRunData { data in
      var limits = Sequencer.TrainingLimits()
      limits.recoveries = 2
      let stages = Faulty(InProcessStages(model: data.model, threads: 1), lostAtStep: 2, times: 99)
      var message = ""
      do {
        try await data.run(data.configuration("vain"), on: stages, limits: limits)
      } catch let error as TrainingRunError {
        message = "\(error)"
      }
      #expect(message.contains("begun 3 times"), "\(message)")
    }
  }

  @Test(arguments: [false, true])
  func `A lost step is made again from the last checkpoint, or the last step in memory`(
    _ inMemory: Bool
  ) async throws {
    try await withRunData { data in
      let configuration = data.configuration("lost") { $0.replicaSnapshots = inMemory }
      let stages = Faulty(InProcessStages(model: data.model, threads: 1), lostAtStep: 3, times: 2)
      let events = RunEvents()
      try await data.run(configuration, on: stages, events: events)
      // The state after the second step is in memory by the time of the loss, or on its way.
      let recovered = events.recovered
      #expect(recovered.count == 2)
      if inMemory {
        #expect(recovered.allSatisfy { $0 >= 1 })
      } else {
        #expect(recovered == [0, 0])
      }
      #expect(try RunBits.log(configuration).map(\.step) == [1, 2, 3])
      #expect(try RunBits(configuration) == (try await data.expected()))
    }
  }

  @Test func `A gateway trains, answers meanwhile, and makes one run at a time`() async throws {
    try await withRunData { data in
      let expected = try await data.expected()
      let configuration = data.configuration("gateway")
      try await withMesh(MeshPlan(visionStages: 2, languageStages: 2)) { mesh in
        let client = TrainingClient(mesh.gateway.endpoint)
        let other = TrainingClient(mesh.gateway.endpoint)
        let refused = RunEvents()
        try await withThrowingTaskGroup(of: Void.self) { group in
          var steps: [Int] = []
          try await client.train(configuration) { event in
            if case .step(let log, _, _) = event { steps.append(log.step) }
            if case .started = event {
              // The beginning of a run ends answers under way: the stages' caches go.
              group.addTask {
                for _ in 0..<3 {
                  let answer = try await mesh.client.ask(
                    [.user("Hello")], settings: ChatSettings.tokens(3))
                  #expect(answer.tokenIDs.count == 3)
                }
              }
              let error = await status { try await other.train(configuration) { refused.add($0) } }
              #expect(error?.code == .failedPrecondition)
            }
          }
          #expect(steps == [1, 2, 3])
          try await group.waitForAll()
        }
        client.close()
        other.close()
      }
      #expect(try RunBits(configuration) == expected)
    }
  }

  @Test func `A run that is asked to end does so after its step, with a checkpoint`() async throws {
    try await withRunData { data in
      let configuration = data.configuration("ended") { $0.maxSteps = 1000 }
      try await withMesh(MeshPlan()) { mesh in
        let client = TrainingClient(mesh.gateway.endpoint)
        let other = TrainingClient(mesh.gateway.endpoint)
        let isFirst = Once()
        let events = RunEvents()
        try await client.train(configuration) { event in
          events.add(event)
          if case .step = event, isFirst.take() { Task { try await other.stop() } }
        }
        guard case .ended(let end)? = events.all.last else {
          Issue.record("\(events.all)")
          return
        }
        #expect(end.reason == .interrupted && end.step < 1000 && end.step > 0)
        #expect(
          CheckpointFolder.latestValid(in: configuration.output).found?.step == end.step)
        client.close()
        other.close()
      }
    }
  }

  @Test func `Events come back from JSON as they were`() throws {
    var log = TrainingLog(step: 3, epoch: 0.5, loss: .nan, learningRate: 1e-5, gradNorm: 2)
    log.memory = [("a", 5)]
    let events: [TrainingEvent] = [
      .step(log, of: 7, remaining: 1.5), .step(log, of: 7, remaining: nil),
      .started(TrainingStart()), .notice("a \"b\""), .warning("c"),
      .saved(path: "/x", step: 1, bytes: 2, seconds: 0.5), .lost(step: 4, reason: "gone"),
      .recovered(step: 2, from: "/y"),
      .ended(TrainingEnd(reason: .stopped, step: 1, steps: 2, loss: .infinity, checkpoint: nil)),
    ]
    for event in events { #expect(try TrainingEvent(json: event.json) == event) }
  }
}

/// Data with a picture, in one step, whose first value is no number.
private struct Poisoned: StepSource {
  let source: DataSteps
  let step: Int

  init(_ source: DataSteps, step: Int) {
    self.source = source
    self.step = step
  }

  var length: TrainingLength { source.length }
  var digest: String { source.digest }
  var skipped: Int { source.skipped }

  func position(after done: Int) -> (epoch: Int, samples: Int) { source.position(after: done) }

  func batch(after done: Int) async throws -> StepBatch {
    var batch = try await source.batch(after: done)
    guard done + 1 == step else { return batch }
    let first = batch.plan.microBatches.firstIndex { $0.tiles > 0 }
    let pixels = batch.pixels
    batch.pixels = { index in
      let tensor = try await pixels(index)
      if index == first { tensor.withElements(of: Float.self) { $0[0] = .nan } }
      return tensor
    }
    return batch
  }
}

/// Lets this process find no room when it goes on writing to a file that is open.
private func fill(_ path: String) {
  let full = open("/dev/full", O_WRONLY | O_CLOEXEC)
  defer { close(full) }
  for descriptor in Int32(3)..<1024 {
    var link = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/fd/\(descriptor)", &link, link.count)
    guard count > 0 else { continue }
    if String(decoding: link[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self) == path {
      dup2(full, descriptor)
    }
  }
}

/// Data whose pictures are gone from some step on.
private struct Vanishing: StepSource {
  struct Gone: Error {}

  let source: DataSteps
  let step: Int

  var length: TrainingLength { source.length }
  var digest: String { source.digest }
  var skipped: Int { source.skipped }

  func position(after done: Int) -> (epoch: Int, samples: Int) { source.position(after: done) }

  func batch(after done: Int) async throws -> StepBatch {
    if done + 1 >= step { throw Gone() }
    return try await source.batch(after: done)
  }
}

/// Stages of which one is lost in some step, or whose disk is full.
private actor Faulty: TrainingStages {
  private let stages: InProcessStages
  private let lostAtStep: UInt64
  private var losses: Int
  private var lostPreparations: Int
  /// What saves fail with, counted from 1.
  private let failures: [Int: any Error]
  private var saves = 0

  init(
    _ stages: InProcessStages, lostAtStep: UInt64 = 0, times: Int = 0, fullAtSave: Int = 0,
    lostPreparations: Int = 0, saves: [Int: any Error] = [:]
  ) {
    self.stages = stages
    self.lostAtStep = lostAtStep
    losses = times
    self.lostPreparations = lostPreparations
    failures = saves.merging([fullAtSave: NoRoom("no room for 5 bytes")]) { own, _ in own }
  }

  func placement() -> StagePlacement { stages.placement() }
  func prepare(_ preparation: TrainingPreparation) async throws -> PreparedStages {
    if lostPreparations > 0 {
      lostPreparations -= 1
      throw RPCError(.unavailable, "language-0: the connection is lost")
    }
    return try await stages.prepare(preparation)
  }
  func step(_ work: StepWork) async throws -> StepOutcome {
    if work.step == lostAtStep, losses > 0 {
      losses -= 1
      throw RPCError(.unavailable, "language-0: the connection is lost")
    }
    return try await stages.step(work)
  }
  func update(_ update: ParameterUpdate) async throws { try await stages.update(update) }
  func abandon(step: UInt64) async { await stages.abandon(step: step) }
  func save(_ work: SaveWork) async throws -> Task<Int, any Error> {
    saves += 1
    if let failure = failures[saves] { return Task { throw failure } }
    return try await stages.save(work)
  }
  func fetch(_ names: [String], _ what: FetchedTensor) async throws -> [String: Tensor] {
    try await stages.fetch(names, what)
  }
  func ready(within duration: Duration) {}
}
