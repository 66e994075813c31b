import Checkpoint
import InternVL
import Kernels
import Logging
import Messages
import Tensors
import Transport

/// A slice of the decoder as a service.
///
/// A step's hidden states pass the slice's layers in place, in the memory that the next stage
/// reads; the last stage samples, and the tokens come back along the chain of calls.
public final class LanguageService: StageService {
  /// Of each slice of layers, in order.
  private let workers: [LanguageWorker]
  private let configuration: ModelConfiguration
  private let core: StageCore
  private let training: TrainingService
  private let summaryLine: String
  /// Whether this process has the model's last layers, and so the next one its first.
  private let isEnd: Bool

  /// Maps the slices' weights and sets the bounds of their caches.
  ///
  /// - Throws: ``StageError``, ``CheckpointError``, ``KernelError``, ``InternVLError``.
  public init(_ options: StageOptions, logger: Logger) throws {
    let configuration = try ModelConfiguration.load(folder: options.model)
    self.configuration = configuration
    let count = configuration.language.layerCount
    let slices = try options.slice.ranges(of: count, virtualStages: options.virtualStages)
    let isEnd = slices[slices.count - 1].upperBound == count
    self.isEnd = isEnd
    let names = slices.map { "\($0.lowerBound)-\($0.upperBound - 1)" }.joined(separator: ", ")
    if isEnd, slices.count == 1, options.next != nil {
      throw StageError.nextUnexpected(role: "language")
    }
    if options.next == nil {
      if !isEnd { throw StageError.nextMissing(role: "language", layers: names, of: count) }
      if slices.count > 1 { throw StageError.ringOpen(layers: slices) }
    }
    let device = try Devices.make(options.device, threads: options.threads)
    let model: @Sendable () throws -> [LanguageStage] = {
      let checkpoint = try CheckpointReader(folder: options.model)
      return try slices.map {
        try LanguageStage(
          configuration, layers: $0, checkpoint: checkpoint, device: device,
          cacheTokens: options.cacheTokens, cacheType: options.cacheType)
      }
    }
    let stages = try model()
    let workers = zip(stages, slices).map { stage, layers in
      LanguageWorker(
        stage: stage, configuration: configuration, layers: layers,
        pictureBytes: options.pictureBytes)
    }
    self.workers = workers
    let rowBytes = StageLimits.rows * configuration.language.hiddenSize * 4
    let logitBytes = StageLimits.logitRows * configuration.language.vocabularySize * 4
    let cacheBytes = stages.reduce(0) { $0 + $1.cache.byteLimit }
    let memory = StageMemory(
      weightBytes: stages.reduce(0) { $0 + $1.weightBytes },
      [
        ("key-value cache", cacheBytes),
        ("computing", stages.map { $0.workingBytes - $0.cache.byteLimit }.max() ?? 0),
        ("a step's rows and logits", isEnd ? rowBytes + logitBytes : 0),
        ("tensors on their way", options.tensorBytes),
        ("image rows", slices[0].lowerBound == 0 ? options.pictureBytes : 0),
      ])
    var description = StageDescription(
      role: "language", slices: slices, of: count, options: options, memory: memory,
      digest: configuration.digest)
    description.cacheTokens = stages[0].cache.capacity
    description.cacheBlockTokens = KeyValueCache.blockTokens
    core = StageCore(description: description, options: options, logger: logger)
    training = TrainingService(
      core: core,
      recipe: .init(
        shape: TrainingShape(
          part: .language,
          chunks: slices.enumerated().map { index, layers in
            .init(
              isFirstOfPart: layers.lowerBound == 0, isLastOfPart: layers.upperBound == count,
              next: isEnd ? index + 1 : index)
          }), model: options.model, device: options.device, threads: options.threads,
        make: { weights, device, training, imageToken in
          let pool = TensorPool()
          return try slices.map {
            try LanguageTrainer(
              configuration, layers: $0, weights: weights, device: device, options: training,
              cacheTokens: options.cacheTokens, cacheType: options.cacheType,
              imageToken: imageToken, pool: pool)
          }
        },
        serve: { slices in
          for (worker, slice) in zip(workers, slices) {
            if let trainer = slice as? LanguageTrainer { worker.serve(trainer.stage) }
          }
        },
        serveModel: {
          for (worker, stage) in zip(workers, try model()) { worker.serve(stage) }
        }))
    summaryLine =
      "language layers \(names), a cache of \(stages[0].cache.capacity) positions: \(memory)"
  }

  public var summary: String { summaryLine }

  public func didConnect(_ connection: Connection) { core.next?.didConnect(connection) }

  public var router: Router {
    var router = Router()
    let workers = workers
    let core = core
    core.register(
      in: &router,
      fill: { [training] description in
        description.cacheTokensUsed = workers.map(\.cache.tokensInUse).max() ?? 0
        description.sequences = workers.map(\.cache.sequences.count).max() ?? 0
        training.fill(&description)
      },
      attach: { session in
        await core.giveBack { for worker in workers { worker.begin(session: session) } }
      },
      detach: { session, isOver in
        await core.giveBack {
          if isOver() { for worker in workers { worker.forget(session: session) } }
        }
      })
    training.register(in: &router)
    if isRing {
      router.handleParcel(Methods.LanguageModel.step) { parcel, context in
        let payload = Payload(parcel.message, tensors: parcel.takeTensors())
        return try await self.step(payload.outOfArena(), context)
      }
    } else {
      // A stage that hands nothing on has nothing to wait for but its own computing.
      router.handle(Methods.LanguageModel.step, on: core.next == nil ? core.thread : nil) {
        payload, context in
        try await self.step(payload, context)
      }
    }
    router.handle(Methods.LanguageModel.placeImage) { payload, _ in
      try await self.place(payload)
    }
    router.handle(Methods.LanguageModel.end) { payload, _ in
      await core.giveBack { for worker in workers { worker.end(payload.message.sequences) } }
      return Payload(EndReply())
    }
    return router
  }

  /// Whether steps come by several times.
  private var isRing: Bool { workers.count > 1 }

  private func place(_ payload: Payload<EncodeRequest>) async throws -> Payload<EncodeReply> {
    let rows = try payload.onlyTensor("picture")
    let request = payload.message
    let worker = workers[0]
    let (tokens, busy) = try await core.compute { _ in
      try worker.place(
        rows, sequence: request.sequence, picture: request.picture)
    }
    var reply = EncodeReply()
    reply.tokens = tokens
    reply.busyMicroseconds = [busy]
    return Payload(reply)
  }

  private func step(
    _ payload: Payload<StepRequest>, _ context: CallContext
  ) async throws -> Payload<StepReply> {
    let chunk = payload.message.chunk
    guard workers.indices.contains(chunk) else {
      throw RPCError(
        .invalidArgument,
        "a step for chunk \(chunk) of a stage with \(workers.count) slices of layers; fix "
          + "--virtual-stages and --next")
    }
    let worker = workers[chunk]
    let next = worker.isLast ? nil : core.next
    let steps = payload.message.steps
    let rowCount = try worker.checkShape(of: steps, tensors: payload.tensors)
    let output: Tensor
    // In a ring, room in an arena that is waited for may be that of this step, further round.
    if let next, !isRing {
      output = try await next.allocate(
        .float32, [rowCount, configuration.language.hiddenSize], deadline: context.deadline)
    } else {
      output = Tensor(
        uninitialized: .float32, [rowCount, configuration.language.hiddenSize])
    }
    let input = payload.tensors.first?.tensor
    let (outcome, busy) = try await core.compute { _ in
      try worker.forward(steps, hidden: input, into: output)
    }

    guard let next else {
      var reply = StepReply()
      reply.results = outcome.results
      reply.busyMicroseconds = [busy]
      return Payload(
        reply,
        tensors: outcome.logits.map { [Attachment($0, name: "logits")] } ?? [])
    }
    // Sequences that failed here go no further.
    guard !outcome.passed.isEmpty else {
      var reply = StepReply()
      reply.results = outcome.results
      reply.busyMicroseconds = [busy]
      return Payload(reply)
    }
    var request = StepRequest()
    request.steps = outcome.passed
    request.chunk = isEnd ? chunk + 1 : chunk
    var reply = try await next.call(
      Methods.LanguageModel.step, request,
      tensors: [Attachment(output.rows(0..<outcome.rows), name: "hidden")],
      deadline: context.deadline)
    reply.message.results += outcome.results
    reply.message.busyMicroseconds.append(busy)
    return reply
  }
}
