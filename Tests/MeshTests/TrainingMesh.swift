import Checkpoint
import InternVL
import Kernels
import Messages
import StageRuntime
import Support
import Synchronization
import Tensors
import Testing
import Training
import Transport

/// A small random model on disk, and micro-batches that it can be trained on.
struct TrainingModel: Sendable {
  /// Of `<IMG_CONTEXT>`.
  static let imageToken: Int32 = 96

  let folder: String
  let configuration: ModelConfiguration

  /// - Parameter directory: where the folder is made.
  init(in directory: SocketDirectory) throws {
    configuration = try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 48, layerCount: 2, headCount: 3, intermediateSize: 96, imageSize: 56),
      language: LanguageConfiguration(
        hiddenSize: 64, layerCount: 4, headCount: 4, keyValueHeadCount: 2, intermediateSize: 100,
        vocabularySize: 97))
    folder = "\(directory.path)/model"
    try RandomModel.write(
      configuration, seed: 5, scalarType: .bfloat16, to: folder, tokenizerFolder: nil)
  }

  /// One for each number of tiles, of two samples of different lengths, the first with pictures;
  /// that of every second with turns that are hidden from each other.
  func microBatches(_ tiles: [Int]) -> [(MicroBatch, pixels: Tensor?)] {
    tiles.enumerated().map { index, tiles in
      var random = SeededRandom(UInt64(index) + 1)
      let images = tiles * configuration.imageTokenCount
      let lengths = [images + 5 + index, 3]
      var ids: [Int32] = []
      var labels: [Int32] = []
      for (sample, length) in lengths.enumerated() {
        for row in 0..<length {
          let isImage = sample == 0 && row < images
          ids.append(isImage ? TrainingModel.imageToken : Int32.random(in: 0..<96, using: &random))
          let isLearnt = !isImage && row + 1 < length
          labels.append(isLearnt ? Int32.random(in: 0..<96, using: &random) : -100)
        }
      }
      let pixels = tiles == 0 ? nil : random.tensor([tiles, 3, 56, 56])
      return (
        MicroBatch(
          samples: [
            .init(
              key: UInt64(2 * index), tokens: lengths[0], tiles: tiles,
              turns: index.isMultiple(of: 2) ? [] : [2, 3]),
            .init(key: UInt64(2 * index + 1), tokens: 3, tiles: 0),
          ], ids: ids, labels: labels, lossScale: 0.125), pixels
      )
    }
  }

  static let options: TrainingOptions = {
    var options = TrainingOptions()
    options.dropPathRate = 0.4
    options.weightDecay = 0.05
    return options
  }()

  func trainer(_ options: TrainingOptions = TrainingModel.options) throws -> ModelTrainer {
    try ModelTrainer(
      configuration, weights: TrainingWeights(model: CheckpointReader(folder: folder)),
      device: CPUDevice(threads: 1), options: options, imageToken: TrainingModel.imageToken)
  }
}

/// What a step of training came to, as bits.
struct TrainedBits: Equatable {
  var losses: [UInt64] = []
  var rows: [Int] = []
  var norms: [String: UInt64] = [:]
  /// Digests of parameters and of their second moments.
  var parameters: [String: UInt64] = [:]
  var secondMoments: [String: UInt64] = [:]

  init() {}

  /// Steps 1 and on of the whole model in one process.
  init(
    _ trainer: ModelTrainer, steps: [[(MicroBatch, pixels: Tensor?)]], learningRate: Double = 1e-2
  ) throws {
    for (index, microBatches) in steps.enumerated() {
      let result = try trainer.step(UInt64(index) + 1, microBatches: microBatches)
      losses += result.losses.map(\.sum.bitPattern)
      rows += result.losses.map(\.rows)
      for (name, sum) in result.sumsOfSquares { norms[name] = sum.bitPattern }
      try trainer.update(
        learningRate: learningRate, gradientScale: 0.5, updateNumber: index + 1)
    }
    for parameter in trainer.parameters {
      parameters[parameter.name] = parameter.value.digest
      secondMoments[parameter.name] = parameter.secondMoment.digest
    }
  }
}

/// Stages that train, each at an address, spoken to as a gateway does.
final class TrainingMesh: Sendable {
  struct Plan: Sendable, CustomTestStringConvertible {
    var vision = [0..<2]
    /// The slices of each language process.
    var language = [[0..<4]]
    var schedule = ScheduleKind.oneForwardOneBackward
    var usesTCP = false
    var recompute = Recompute.full
    var arenaBytes = 64 << 20
    /// Whether all stages are child processes spoken to over standard input and output.
    var areChildren = false
    /// Bytes of pixels that wait in the first stage.
    var pixelBytes = 256 << 20

    var testDescription: String {
      let way = areChildren ? "stdio" : usesTCP ? "tcp" : "unix, arenas of \(arenaBytes)"
      return "\(vision) \(language) \(schedule.rawValue) \(way), recompute \(recompute.rawValue)"
    }
  }

  let plan: Plan
  let names: [String]
  let hosts: [StageHost]
  let channels: [Channel]
  /// Names of what each stage trains.
  private let trained = Mutex<[[String]]>([])

  init(_ plan: Plan, _ model: TrainingModel, _ directory: SocketDirectory) async throws {
    self.plan = plan
    var names: [String] = []
    var hosts: [StageHost] = []
    let ring =
      (plan.language.first?.count ?? 1) > 1 ? directory.socket("language-0") : nil
    var next: Endpoint? = ring

    func host(
      _ name: String, _ slice: StageOptions.Slice,
      make: @escaping @Sendable (StageOptions) throws -> any StageService
    ) async throws {
      var options = StageOptions(
        model: model.folder, slice: slice, next: next.map { .endpoint($0) }, cacheTokens: 256,
        arenaBytes: plan.arenaBytes)
      options.pixelBytes = plan.pixelBytes
      let address = next?.description
      let host = StageHost(
        // Whoever closes a ring has to know where before it is there.
        plan.usesTCP && (ring == nil || name != "language-0")
          ? .loopback : directory.socket(name), stand: nil
      ) { [options] in
        guard plan.areChildren else { return try make(options).router }
        let command = Executables.stage(name, options, next: address)
        return Bridge.router(to: Channel(.exec(command: command)))
      }
      try await host.start()
      names.insert(name, at: 0)
      hosts.insert(host, at: 0)
      next = await host.endpoint
    }

    for (index, slices) in plan.language.enumerated().reversed() {
      try await host("language-\(index)", .several(slices)) {
        try LanguageService($0, logger: .quiet)
      }
    }
    try await host("projector", .stage(0, of: 1)) { try ProjectorService($0, logger: .quiet) }
    for (index, layers) in plan.vision.enumerated().reversed() {
      try await host("vision-\(index)", .layers(layers)) {
        try VisionService($0, logger: .quiet)
      }
    }
    self.names = names
    self.hosts = hosts
    var channels: [Channel] = []
    for host in hosts { channels.append(Channel(await host.endpoint)) }
    self.channels = channels
  }

  func close() async {
    for channel in channels { channel.close() }
    for host in hosts { await host.stop() }
  }

  func call<Request, Response>(
    _ stage: Int, _ method: Method<Request, Response>, _ request: Request,
    tensors: [Attachment] = []
  ) async throws -> Payload<Response> {
    try await channels[stage].call(
      method, request, tensors: tensors, deadline: .after(.seconds(30)))
  }

  /// Does something with all stages at once.
  func each<Result: Sendable>(
    _ body: @escaping @Sendable (Int) async throws -> Result
  ) async throws -> [Result] {
    try await withThrowingTaskGroup(of: (Int, Result).self) { group in
      for index in channels.indices { group.addTask { (index, try await body(index)) } }
      var results: [(Int, Result)] = []
      for try await result in group { results.append(result) }
      return results.sorted { $0.0 < $1.0 }.map(\.1)
    }
  }

  /// What each stage's call failed with.
  func failures(
    _ body: @escaping @Sendable (Int) async throws -> Void
  ) async -> [RPCError?] {
    await withTaskGroup(of: (Int, RPCError?).self) { group in
      for index in channels.indices {
        group.addTask { (index, await status { try await body(index) }) }
      }
      var results: [(Int, RPCError?)] = []
      for await result in group { results.append(result) }
      return results.sorted { $0.0 < $1.0 }.map(\.1)
    }
  }

  func prepareRequest(_ options: TrainingOptions = TrainingModel.options) -> PrepareTrainingRequest
  {
    PrepareTrainingRequest(
      seed: options.seed, trainVision: options.trainsVision,
      trainProjector: options.trainsProjector, trainLanguage: options.trainsLanguage,
      dropPathRate: options.dropPathRate, recompute: plan.recompute.rawValue,
      beta1: options.beta1, beta2: options.beta2, epsilon: options.epsilon,
      weightDecay: options.weightDecay, decay: options.decay.rawValue,
      imageToken: Int(TrainingModel.imageToken))
  }

  @discardableResult
  func prepare(
    _ options: TrainingOptions = TrainingModel.options, resume: String? = nil
  ) async throws -> [PrepareTrainingReply] {
    var request = prepareRequest(options)
    request.resume = resume
    let replies = try await each { [request] in
      try await self.call($0, Methods.Trainer.prepare, request).message
    }
    trained.withLock {
      $0 = replies.map { $0.parameters.filter(\.isTrained).map(\.name) }
    }
    return replies
  }

  func feed(
    _ step: UInt64, _ microBatches: [(MicroBatch, pixels: Tensor?)], attempt: Int = 0,
    stages: [Int]? = nil
  ) async throws {
    _ = try await each { stage in
      guard stages?.contains(stage) ?? true else { return }
      for (index, (microBatch, pixels)) in microBatches.enumerated() {
        let request = FeedRequest(
          step: step, microBatch: index,
          samples: microBatch.samples.map {
            MicroBatchSample(
              key: $0.key, tokens: $0.tokens, tiles: $0.tiles, turns: $0.turns)
          }, tokens: microBatch.ids, labels: microBatch.labels, lossScale: microBatch.lossScale,
          attempt: attempt)
        let isFirst = stage == 0 && pixels != nil
        _ = try await self.call(
          stage, Methods.Trainer.feed, request,
          tensors: isFirst ? pixels.map { [Attachment($0, name: "pixels")] } ?? [] : [])
      }
    }
  }

  /// The actions of each stage.
  func requests(
    _ step: UInt64, microBatches count: Int, forwardOnly: Bool = false, attempt: Int = 0
  ) throws -> [TrainingStepRequest] {
    let front = plan.vision.count + 1
    let chunks = plan.language[0].count
    let placement =
      Array(0..<front)
      + (0..<chunks).flatMap { _ in plan.language.indices.map { front + $0 } }
    let schedule = try Schedule(kind: plan.schedule, placement: placement, microBatches: count)
    return schedule.actions.map { actions in
      TrainingStepRequest(
        step: step,
        actions: actions.map { action in
          let kind: ActionKind =
            switch action.kind {
            case .forward: .forward
            case .backward: .backward
            case .backwardInput: .backwardInput
            case .backwardWeight: .backwardWeight
            }
          return TrainingAction(
            kind: kind, microBatch: action.microBatch, chunk: action.chunk)
        }, microBatches: count, forwardOnly: forwardOnly, attempt: attempt)
    }
  }

  func step(
    _ step: UInt64, _ microBatches: [(MicroBatch, pixels: Tensor?)], forwardOnly: Bool = false,
    attempt: Int = 0
  ) async throws -> [TrainingStepReply] {
    try await feed(step, microBatches, attempt: attempt)
    let requests = try requests(
      step, microBatches: microBatches.count, forwardOnly: forwardOnly, attempt: attempt)
    return try await each {
      try await self.call($0, Methods.Trainer.step, requests[$0]).message
    }
  }

  func update(_ step: UInt64, learningRate: Double = 1e-2, skip: Bool = false) async throws {
    let request = UpdateRequest(
      step: step, learningRate: learningRate, gradientScale: 0.5, skip: skip)
    _ = try await each { try await self.call($0, Methods.Trainer.update, request) }
  }

  func abandon(_ step: UInt64) async throws {
    _ = try await each {
      try await self.call($0, Methods.Trainer.abandon, AbandonRequest(step: step))
    }
  }

  /// Steps 1 and on, with their updates.
  func train(_ steps: [[(MicroBatch, pixels: Tensor?)]], attempt: Int = 0) async throws
    -> TrainedBits
  {
    var bits = TrainedBits()
    for (index, microBatches) in steps.enumerated() {
      let number = UInt64(index) + 1
      bits.take(try await step(number, microBatches, attempt: attempt))
      try await update(number)
    }
    try await fetch(into: &bits)
    return bits
  }

  /// All parameters and second moments.
  func fetch(into bits: inout TrainedBits) async throws {
    let names = trained.withLock { $0 }
    for (stage, names) in names.enumerated() {
      for start in stride(from: 0, to: names.count, by: 64) {
        let some = Array(names[start..<min(start + 64, names.count)])
        for attachment in try await fetch(some, "value", from: stage) {
          bits.parameters[attachment.name ?? ""] = attachment.tensor.digest
        }
        for attachment in try await fetch(some, "exp_avg_sq", from: stage) {
          bits.secondMoments[attachment.name ?? ""] = attachment.tensor.digest
        }
      }
    }
  }

  func fetch(_ names: [String], _ what: String, from stage: Int) async throws -> [Attachment] {
    try await call(stage, Methods.Trainer.fetch, FetchRequest(names: names, what: what)).tensors
  }
}

extension Tensor {
  /// FNV-1a of the elements' bits.
  var digest: UInt64 {
    bits.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }
}

extension TrainedBits {
  mutating func take(_ replies: [TrainingStepReply]) {
    let found = replies.flatMap(\.losses).sorted { $0.microBatch < $1.microBatch }
    losses += found.map(\.sum.bitPattern)
    rows += found.map(\.rows)
    for norm in replies.flatMap(\.norms) { norms[norm.name] = norm.sumOfSquares.bitPattern }
  }
}

extension Executables {
  /// The command that serves a stage of any slices over standard input and output.
  static func stage(_ name: String, _ options: StageOptions, next: String?) -> String {
    var words = [
      "'\(folder)/chiasm-\(name.split(separator: "-")[0])'", "--model", "'\(options.model)'",
      "--stdio", "--threads", "\(options.threads)", "--log-level", "error",
    ]
    let ranges: [Range<Int>] =
      switch options.slice {
      case .layers(let range): [range]
      case .several(let ranges): ranges
      case .stage: []
      }
    if !ranges.isEmpty {
      let text = ranges.map { "\($0.lowerBound)-\($0.upperBound - 1)" }
      words += ["--layers", text.joined(separator: ",")]
    }
    if let next { words += ["--next", "'\(next)'"] }
    return words.joined(separator: " ")
  }
}

/// Runs `body` with a model and a mesh that end with it.
func withTraining<Result>(
  _ plan: TrainingMesh.Plan = .init(),
  _ body: (TrainingMesh, TrainingModel) async throws -> Result
) async throws -> Result {
  let directory = try SocketDirectory()
  defer { directory.remove() }
  let model = try TrainingModel(in: directory)
  let mesh = try await TrainingMesh(plan, model, directory)
  do {
    let result = try await body(mesh, model)
    await mesh.close()
    return result
  } catch {
    await mesh.close()
    throw error
  }
}
