import Checkpoint
import InternVL
import Logging
import Messages
import Sequencer
import Support
import Synchronization
import Tensors
import Testing
import Training
import TrainingData
import Transport

@testable import StageRuntime

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A folder with training data for the golden model: eight ragged samples, two of text alone, one
/// with two pictures.
struct RunData: Sendable {
  let directory: SocketDirectory
  var path: String { directory.path }
  /// The model's folder.
  let model: String

  /// - Parameter hasFourLayers: a random model with four layers of each part, instead of the golden
  ///   one.
  init(hasFourLayers: Bool = false) throws {
    directory = try SocketDirectory()
    if hasFourLayers {
      model = "\(directory.path)/model"
      try RandomModel.write(
        ModelConfiguration(
          vision: VisionConfiguration(
            hiddenSize: 48, layerCount: 4, headCount: 3, intermediateSize: 96, imageSize: 56),
          language: LanguageConfiguration(
            hiddenSize: 64, layerCount: 4, headCount: 4, keyValueHeadCount: 2,
            intermediateSize: 100, vocabularySize: 512)),
        seed: 5, to: model, tokenizerFolder: GoldenModel.tiny.folder)
    } else {
      model = GoldenModel.tiny.folder
    }
    let lines = [
      Self.line("What is it?", "A circle.", ["image.jpg"]),
      Self.line("Say hello.", "Hello, and good day to you.", []),
      Self.line("Name the colours.", "Red, green and blue, in this order.", ["second.jpg"]),
      Self.line("Compare them.", "Both have circles.", ["image.jpg", "second.jpg"]),
      Self.line("And now?", "Yes.", ["second.jpg"]),
      Self.line("Count to five, please.", "One, two, three, four, five.", []),
      Self.line("Is it round?", "It is rather round, I would say.", ["image.jpg"]),
      Self.line("What else is there?", "A field.", ["second.jpg"]),
    ]
    try write("data.jsonl", lines.joined(separator: "\n") + "\n")
    let root = Fixtures.path("golden/v12-tiny")
    try write(
      "meta.json",
      #"{"all": {"root": "\#(root)", "annotation": "data.jsonl", "repeat_time": 1}}"#)
  }

  private static func line(_ question: String, _ answer: String, _ images: [String]) -> String {
    let marks = images.map { _ in "<image>\\n" }.joined()
    let list = images.map { "\"\($0)\"" }.joined(separator: ", ")
    return
      #"{"image": [\#(list)], "conversations": [{"from": "human", "value": "\#(marks)\#(question)"}, "#
      + #"{"from": "gpt", "value": "\#(answer)"}]}"#
  }

  func write(_ name: String, _ text: String) throws {
    let file = fopen("\(path)/\(name)", "w")
    try #require(file != nil)
    fputs(text, file)
    fclose(file)
  }

  /// A run of three steps that writes below `name`.
  func configuration(
    _ name: String, _ change: (inout TrainingConfiguration) -> Void = { _ in }
  ) -> TrainingConfiguration {
    var configuration = TrainingConfiguration()
    configuration.model = model
    configuration.meta = "\(path)/meta.json"
    configuration.output = "\(path)/\(name)"
    configuration.globalBatchSize = 8
    configuration.maxSteps = 3
    configuration.learningRate = 1e-3
    configuration.warmupRatio = 0
    configuration.dropPathRate = 0.4
    configuration.saveSteps = 100
    configuration.maxSequenceLength = 512
    change(&configuration)
    return configuration
  }

  func remove() { directory.remove() }
}

/// What a run came to: its losses and everything in its last checkpoint, as bits.
struct RunBits: Equatable {
  var losses: [String] = []
  var tensors: [String: UInt64] = [:]

  init(_ configuration: TrainingConfiguration) throws {
    let checkpoint = try #require(CheckpointFolder.latestValid(in: configuration.output).found)
    let reader = try TrainingStateReader(folder: checkpoint.path)
    for name in reader.model.names { tensors[name] = try reader.model.tensor(name).digestOfBytes }
    for name in reader.trainedNames {
      for kind in ["exp_avg", "exp_avg_sq"] {
        tensors["\(kind).\(name)"] = try reader.tensor(named: "\(kind).\(name)")?.digestOfBytes
      }
    }
    losses = try RunBits.log(configuration).map {
      "\($0.step): \($0.loss) \($0.gradNorm) \($0.learningRate)"
    }
  }

  static func log(_ configuration: TrainingConfiguration) throws -> [TrainingLog] {
    let text = try RunFile.read("\(configuration.output)/train_log.jsonl")
    return try text.split(separator: 0x0A).map {
      try TrainingLog(line: String(decoding: $0, as: UTF8.self))
    }
  }
}

enum RunFile {
  static func read(_ path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var bytes: [UInt8] = []
    while case let byte = fgetc(file), byte >= 0 { bytes.append(UInt8(byte)) }
    return bytes
  }
}

extension Tensor {
  var digestOfBytes: UInt64 {
    withExtendedLifetime(storage) {
      UnsafeRawBufferPointer(start: baseAddress, count: byteCount)
        .reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    }
  }
}

/// How a run's stages are cut.
struct RunPlan: Sendable, CustomTestStringConvertible {
  var vision = [0..<3]
  var language = [[0..<3]]
  var schedule = ScheduleKind.oneForwardOneBackward
  var recompute = Recompute.full
  var areChildren = false
  /// Bytes of pixels that wait in the first stage.
  var pixelBytes = 256 << 20

  var testDescription: String {
    "\(vision) \(language) \(schedule.rawValue) recompute \(recompute.rawValue)"
      + (areChildren ? " stdio" : "")
  }
}

/// Stages of the golden model at their addresses, without a gateway.
final class RunMesh: Sendable {
  let directory: SocketDirectory
  let hosts: [String: StageHost]
  let addresses: StageAddresses
  let session: StageSession
  private let first = FirstStage()

  /// The most bytes of pixels that the first stage has held.
  var peakPixelBytes: Int? { first.service.withLock { $0?.training.pixels.peakBytes } }

  private final class FirstStage: Sendable {
    let service = Mutex<VisionService?>(nil)
  }

  init(_ plan: RunPlan, model: String) async throws {
    let directory = try SocketDirectory()
    self.directory = directory
    var hosts: [String: StageHost] = [:]
    let isRing = (plan.language.first?.count ?? 1) > 1
    let first = first
    var next: Endpoint? = isRing ? directory.socket("language-0") : nil

    func host(
      _ name: String, _ slice: StageOptions.Slice,
      make: @escaping @Sendable (StageOptions) throws -> any StageService
    ) async throws -> Endpoint {
      var options = StageOptions(
        model: model, slice: slice, next: next.map { .endpoint($0) },
        cacheTokens: 1024)
      options.pixelBytes = plan.pixelBytes
      let following = next?.description
      let host = StageHost(directory.socket(name), stand: nil) { [options] in
        guard plan.areChildren else { return try make(options).router }
        return Bridge.router(
          to: Channel(.exec(command: RunMesh.command(name, options, next: following))))
      }
      try await host.start()
      hosts[name] = host
      next = directory.socket(name)
      return directory.socket(name)
    }

    var language: [Endpoint] = []
    for (index, slices) in plan.language.enumerated().reversed() {
      let slice: StageOptions.Slice = slices.count == 1 ? .layers(slices[0]) : .several(slices)
      language.insert(
        try await host("language-\(index)", slice) { try LanguageService($0, logger: .quiet) },
        at: 0)
    }
    let projector = try await host("projector", .stage(0, of: 1)) {
      try ProjectorService($0, logger: .quiet)
    }
    var vision: [Endpoint] = []
    for (index, layers) in plan.vision.enumerated().reversed() {
      vision.insert(
        try await host("vision-\(index)", .layers(layers)) {
          let stage = try VisionService($0, logger: .quiet)
          if index == 0 { first.service.withLock { $0 = stage } }
          return stage
        }, at: 0)
    }
    self.hosts = hosts
    addresses = StageAddresses(vision: vision, projector: projector, language: language)
    session = try StageSession(model: model, addresses: addresses, logger: .quiet)
  }

  /// The command of a stage that is spoken to over its standard streams.
  private static func command(_ name: String, _ options: StageOptions, next: String?) -> String {
    var words = [
      "'\(Executables.folder)/chiasm-\(name.split(separator: "-")[0])'", "--model",
      "'\(options.model)'", "--stdio", "--threads", "1", "--log-level", "error",
    ]
    if case .layers(let range) = options.slice {
      words += ["--layers", "\(range.lowerBound)-\(range.upperBound - 1)"]
    }
    if let next { words += ["--next", "'\(next)'"] }
    return words.joined(separator: " ")
  }

  func close() async {
    await session.close()
    for host in hosts.values { await host.stop() }
    directory.remove()
  }
}

/// Runs `body` with stages that end with it.
func withRunMesh<Result>(
  _ plan: RunPlan, model: String = GoldenModel.tiny.folder,
  _ body: (RunMesh) async throws -> Result
) async throws -> Result {
  let mesh = try await RunMesh(plan, model: model)
  do {
    let result = try await body(mesh)
    await mesh.close()
    return result
  } catch {
    await mesh.close()
    throw error
  }
}

/// Events of a run, in their order.
final class RunEvents: Sendable {
  private let events = Mutex<[TrainingEvent]>([])

  func add(_ event: TrainingEvent) { events.withLock { $0.append(event) } }
  var all: [TrainingEvent] { events.withLock { $0 } }
  var warnings: [String] {
    all.compactMap { if case .warning(let text) = $0 { text } else { nil } }
  }
  var steps: [Int] {
    all.compactMap { if case .step(let log, _, _) = $0 { log.step } else { nil } }
  }
  var saved: [Int] {
    all.compactMap { if case .saved(_, let step, _, _) = $0 { step } else { nil } }
  }
  var recovered: [Int] {
    all.compactMap { if case .recovered(let step, _) = $0 { step } else { nil } }
  }
}

extension RunData {
  /// Runs to the end, in this process unless stages are given.
  @discardableResult
  func run(
    _ configuration: TrainingConfiguration, on stages: (any TrainingStages)? = nil,
    source: (any StepSource)? = nil, limits: Sequencer.TrainingLimits = .init(),
    events: RunEvents = RunEvents(),
    also: @escaping @Sendable (TrainingEvent) async -> Void = { _ in }
  ) async throws -> TrainingEnd {
    let steps: any StepSource =
      if let source { source } else { try await DataSteps.check(configuration).steps }
    let run = try TrainingRun(
      configuration, stages: stages ?? InProcessStages(model: model, threads: 1), source: steps,
      limits: limits, logger: .quiet
    ) { event in
      events.add(event)
      await also(event)
    }
    return try await run.run()
  }

  /// The bits of an undisturbed run in this process.
  func expected(
    _ change: (inout TrainingConfiguration) -> Void = { _ in }
  ) async throws -> RunBits {
    let configuration = configuration("expected", change)
    try await run(configuration)
    return try RunBits(configuration)
  }
}

/// Runs `body` with data that is removed after it.
func withRunData<Result>(
  hasFourLayers: Bool = false, _ body: (RunData) async throws -> Result
) async throws -> Result {
  let data = try RunData(hasFourLayers: hasFourLayers)
  defer { data.remove() }
  return try await body(data)
}
