#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import Logging
import Messages
import Synchronization
import Tensors
import Text
import Threads
import Transport

/// The gateway: sequences chat requests over the stages of a mesh.
///
/// A request's prompt is made ready on a thread of its own, waits for a place, sends its
/// pictures to the first vision stage, and is then a part of the scheduler's steps until its
/// answer ends. The stages hand tensors to each other; only pixels pass here, and what a probe asks
/// to capture. The same stages train, where somebody asks for it; see ``TrainingRun``.
public final class GatewayService: Sendable {
  public let builder: PromptBuilder
  /// The model folder's own name.
  public let modelName: String
  /// When the gateway began, in seconds since 1970.
  public let started = Int(time(nil))
  let limits: GatewayLimits
  private let links: StageLinks
  private let scheduler: Scheduler
  private let admission: Admission
  private let preprocessing = DedicatedThread(name: "preprocess")
  private let nextSequence = Atomic<UInt64>(1)
  /// Pictures on their way through the vision stages and the projector, by sequence.
  private let encodings = Mutex<[UInt64: Task<Payload<EncodeReply>, any Error>]>([:])
  private let ended: AsyncStream<Ended>
  private let endedQueue: AsyncStream<Ended>.Continuation
  public let health = HealthService()
  private let healthUpdate = Mutex(())
  private let barrier = UpdateBarrier()
  private let training: TrainingService
  private let logger: Logger

  /// - Throws: what is wrong with the model folder.
  public init(
    modelFolder: String, addresses: StageAddresses, limits: GatewayLimits = GatewayLimits(),
    logger: Logger
  ) throws {
    builder = try PromptBuilder(modelFolder: modelFolder)
    modelName = modelFolder.split(separator: "/").last.map(String.init) ?? modelFolder
    self.limits = limits
    self.logger = logger
    let links = StageLinks(
      configuration: builder.configuration, addresses: addresses, limits: limits, logger: logger)
    self.links = links
    admission = Admission(limits: limits) { links.cache.positions }
    let first = links.language[0].channel
    scheduler = Scheduler(limits: limits, stepsAtOnce: links.language.count) { [barrier] request in
      try await barrier.pass { try await first.call(Methods.LanguageModel.step, request) }
    }
    training = TrainingService(
      modelFolder: modelFolder, imageToken: builder.imageTokenID, links: links, barrier: barrier,
      logger: logger
    ) { [scheduler] in
      await scheduler.failAll(
        RPCError(
          .unavailable, "training loads the weights anew, and ended this answer; ask again"))
    }
    (ended, endedQueue) = AsyncStream.makeStream()
    health.set("", .notServing)
    health.set(GatewayService.name, .notServing)
  }

  static let name = "chiasm.v1.Gateway"

  /// The calls that the gateway answers.
  public var router: Router {
    var router = Router()
    router.handle(Methods.Gateway.describe) { _, _ in
      Payload(await self.describe())
    }
    router.handleStream(Methods.Gateway.chat) { payload, _, writer in
      try await self.chat(payload) { try await writer.write($0) }
    }
    training.register(in: &router)
    health.register(in: &router)
    return router
  }

  /// Keeps the stages attached and sends steps until the task is cancelled.
  public func run() async {
    await withDiscardingTaskGroup { group in
      group.addTask { await self.links.run { await self.stageChanged($0) } }
      group.addTask { await self.scheduler.run() }
      group.addTask { await self.forgetEnded() }
    }
    await training.cancel()
  }

  /// Ends a training run that is under way after its step, with a checkpoint; at once when that
  /// takes longer than `duration`.
  public func endTraining(within duration: Duration) async {
    await training.end(within: duration)
  }

  /// Waits until all stages are there and fit together.
  public func ready(within duration: Duration) async throws {
    try await links.ready(within: duration)
  }

  /// Answers one chat request, event by event.
  ///
  /// - Throws: INVALID_ARGUMENT for a request that cannot be, RESOURCE_EXHAUSTED when there is
  ///   no place for it, UNAVAILABLE when a stage is down or goes down.
  public func chat(
    _ payload: Payload<ChatRequest>,
    write: @Sendable (Payload<ChatEvent>) async throws -> Void
  ) async throws {
    let clock = ContinuousClock()
    let arrival = clock.now
    try await admission.arrive()
    let prompt: Prompt
    let options: GenerationOptions
    let positions: Int
    do {
      prompt = try await prepare(payload)
      options = try resolve(payload.message, prompt: prompt)
      positions = try await enter(tokens: prompt.tokens.count + options.maxTokens)
    } catch {
      await admission.leave()
      throw error
    }
    let id =
      UInt64(links.session) << 32
      | (nextSequence.add(1, ordering: .relaxed).oldValue & 0xffff_ffff)
    var times = Clock(arrival: arrival, admitted: clock.now)
    let ended = Ended(sequence: id, positions: positions)
    do {
      try await show(id, prompt, options, &times, write: write)
    } catch {
      endedQueue.yield(ended)
      throw error
    }
    // From here on the place is given back when the answer ends, however slowly it is read.
    let generation = Generation(
      id: id, prompt: prompt, options: options, tokenizer: builder.tokenizer)
    let events = await scheduler.begin(generation) { [endedQueue] in endedQueue.yield(ended) }
    do {
      for try await var event in events {
        if times.firstToken == nil { times.firstToken = .now }
        if event.message.finishReason != nil { event.message.timings = timings(times) }
        try await write(event)
      }
      try Task.checkCancellation()
    } catch {
      await scheduler.end(id)
      throw error
    }
  }

  /// Waits for the stages, and for a place among the answers.
  ///
  /// - Returns: the cache positions taken.
  private func enter(tokens: Int) async throws -> Int {
    while true {
      try await links.ready(within: limits.stageWait)
      let block = links.cache.block
      let positions = (tokens + block - 1) / block * block
      do {
        try await admission.enter(positions: positions)
        return positions
      } catch is Admission.StagesGone {
        continue
      }
    }
  }

  /// A sequence that is over, and the cache positions it will give back.
  private struct Ended: Sendable {
    let sequence: UInt64
    let positions: Int
  }

  private func prepare(_ payload: Payload<ChatRequest>) async throws -> Prompt {
    guard payload.tensors.count <= limits.pictures else {
      throw RPCError(
        .invalidArgument,
        "\(payload.tensors.count) pictures in one request, at most \(limits.pictures) are taken")
    }
    for attachment in payload.tensors {
      guard attachment.tensor.scalarType == .uint8, attachment.tensor.shape.count == 1 else {
        throw RPCError(
          .invalidArgument, "pictures are sent as the bytes of a JPEG or PNG file, uint8 [n]")
      }
      guard attachment.tensor.count <= limits.pictureBytes else {
        throw RPCError(
          .invalidArgument,
          "a picture of \(attachment.tensor.count) bytes, at most \(limits.pictureBytes) are taken")
      }
    }
    return try await preprocessing.run { [builder] _ in
      try builder.build(turns: payload.message.turns, files: payload.tensors.map(\.tensor))
    }
  }

  private func resolve(_ request: ChatRequest, prompt: Prompt) throws -> GenerationOptions {
    var sampling = request.sampling ?? SamplingParameters()
    if sampling.seed == nil { sampling.seed = UInt64.random(in: 0...UInt64.max) }
    let room = builder.contextLength - prompt.tokens.count
    let maxTokens = request.maxTokens ?? min(limits.defaultMaxTokens, room)
    guard maxTokens > 0 else {
      throw RPCError(.invalidArgument, "max_tokens is \(maxTokens), expected at least 1")
    }
    guard maxTokens <= room else {
      throw RPCError(
        .invalidArgument,
        "the prompt's \(prompt.tokens.count) tokens and max_tokens \(maxTokens) exceed the "
          + "context of \(builder.contextLength); ask for at most \(room) tokens")
    }
    return GenerationOptions(
      sampling: sampling, maxTokens: maxTokens,
      stopStrings: request.stop + (request.ignoreEnd ? [] : builder.template.stopStrings),
      stopTokens: Set(request.stopTokens), endTokens: builder.endTokens,
      ignoresEnd: request.ignoreEnd, captures: request.capture)
  }

  /// Moments of a request, for its timings.
  private struct Clock {
    let arrival: ContinuousClock.Instant
    let admitted: ContinuousClock.Instant
    var imagesDone: ContinuousClock.Instant?
    var firstToken: ContinuousClock.Instant?
  }

  /// Shows the pictures to the model, and sends the events that come before the first token.
  private func show(
    _ id: UInt64, _ prompt: Prompt, _ options: GenerationOptions, _ clock: inout Clock,
    write: @Sendable (Payload<ChatEvent>) async throws -> Void
  ) async throws {
    var first = ChatEvent()
    first.seed = options.sampling.seed
    let captured = try await encode(prompt, id: id, captures: options.captures)
    clock.imagesDone = .now
    if options.captures {
      first.promptTokens = prompt.tokens
      first.decodedSHA256 = prompt.pictures.map(\.decodedSHA256)
      first.resizedSHA256 = prompt.pictures.map(\.resizedSHA256)
    }
    try await write(Payload(first))
    // One event a picture: together they can be more tensors than an event may have.
    for tensors in captured { try await write(Payload(ChatEvent(), tensors: tensors)) }
  }

  /// Sends the pictures to the first vision stage, one after the other.
  ///
  /// - Returns: for each picture, what is captured of it.
  private func encode(
    _ prompt: Prompt, id: UInt64, captures: Bool
  ) async throws -> [[Attachment]] {
    var captured: [[Attachment]] = []
    let channel = links.vision[0].channel
    for (index, picture) in prompt.pictures.enumerated() {
      var request = EncodeRequest()
      request.sequence = id
      request.picture = index
      request.captureVision = captures
      request.captureProjector = captures
      let call = Task { [request, barrier] in
        try await barrier.pass {
          try await channel.call(
            Methods.VisionEncoder.encode, request,
            tensors: [Attachment(picture.pixels, name: "pixels")])
        }
      }
      encodings.withLock { $0[id] = call }
      let result = await withTaskCancellationHandler {
        await call.result
      } onCancel: {
        call.cancel()
      }
      encodings.withLock { $0[id] = nil }
      let reply = try unlessLost(result)
      if captures {
        captured.append(
          [Attachment(picture.pixels, name: "pixels")] + reply.outOfArena().tensors)
      }
    }
    return captured
  }

  /// A picture's reply, or the loss of a stage that ended its call.
  private func unlessLost(
    _ result: Result<Payload<EncodeReply>, any Error>
  ) throws -> Payload<EncodeReply> {
    switch result {
    case .success(let reply): return reply
    case .failure(let error):
      let isCancelled = (error as? RPCError)?.code == .cancelled || error is CancellationError
      guard isCancelled, !Task.isCancelled else { throw error }
      throw RPCError(
        .unavailable,
        "a stage went away while it had a picture (\(links.obstacle ?? "it is back")); ask again")
    }
  }

  private func timings(_ clock: Clock) -> Timings {
    func milliseconds(
      _ from: ContinuousClock.Instant?, _ to: ContinuousClock.Instant?
    ) -> Double {
      guard let from, let to else { return 0 }
      return (to - from) / .milliseconds(1)
    }
    let now = ContinuousClock.now
    var timings = Timings()
    timings.queue = milliseconds(clock.arrival, clock.admitted)
    timings.image = milliseconds(clock.admitted, clock.imagesDone)
    timings.prefill = milliseconds(clock.imagesDone, clock.firstToken)
    timings.decode = milliseconds(clock.firstToken, now)
    timings.total = milliseconds(clock.arrival, now)
    return timings
  }

  private func stageChanged(_ link: StageLink) async {
    await admission.capacityChanged()
    // One after the other, or an older look at the stages could have the last word.
    healthUpdate.withLock { _ in
      let status: ServingStatus = links.obstacle == nil ? .serving : .notServing
      health.set("", status)
      health.set(GatewayService.name, status)
    }
    // A stage that hangs ends no call by itself.
    if link.role != .language, link.description == nil {
      for call in encodings.withLock({ Array($0.values) }) { call.cancel() }
    }
    // A language stage that was lost, or is back without its caches, takes with it what every
    // live answer had there.
    if link.role == .language, link.description == nil {
      await scheduler.failAll(
        RPCError(
          .unavailable, "\(link.name) at \(link.endpoint) went away in mid-answer; ask again"))
    }
  }

  /// Tells the language stages which sequences are over, and only then gives their places to
  /// others: a stage must have let go of a cache before it is asked for the next one.
  private func forgetEnded() async {
    await withDiscardingTaskGroup { group in
      for await ended in ended {
        group.addTask {
          await self.tellEnd(ended.sequence)
          await self.admission.release(positions: ended.positions)
        }
      }
    }
  }

  private func tellEnd(_ sequence: UInt64) async {
    var request = EndRequest()
    request.sequences = [sequence]
    await withDiscardingTaskGroup { group in
      for link in links.language where link.description != nil {
        group.addTask { [request] in
          // A stage that cannot be told has lost the sequence, or drops it with the session.
          // No deadline: the positions are free when the stage has let go of them, and a stage
          // that hangs loses its connection.
          do {
            _ = try await link.channel.call(Methods.LanguageModel.end, request)
          } catch {
            // Not before it is known to be lost, or who waits would be let in to a stage that
            // takes no calls any more.
            await link.lost(within: .seconds(1))
          }
        }
      }
    }
  }

  /// Why requests cannot be answered now; nil when they can.
  public var obstacle: String? { links.obstacle }

  /// What the gateway serves, and how its stages are.
  public func describe() async -> GatewayDescription {
    var description = GatewayDescription()
    description.model = modelName
    description.templateName = builder.template.rawValue
    description.contextLength = builder.contextLength
    description.imageSize = builder.configuration.imageSize
    description.imageTokens = builder.configuration.imageTokenCount
    description.running = await admission.running
    description.waiting = await admission.waiting
    for link in links.all {
      var stage = GatewayStage()
      stage.name = link.name
      stage.address = "\(link.endpoint)"
      switch link.current {
      case .down(let reason):
        stage.ready = false
        stage.detail = reason
      case .up:
        stage.ready = true
        // Counters move: ask again, and fall back on what was known.
        stage.description =
          (try? await link.channel.call(
            Methods.Stage.describe, DescribeRequest(), deadline: .after(.seconds(1))
          ).message) ?? link.description
      }
      description.stages.append(stage)
    }
    return description
  }
}
