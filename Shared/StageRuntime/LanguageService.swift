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
  private let worker: LanguageWorker
  private let configuration: ModelConfiguration
  private let layers: Range<Int>
  private let core: StageCore
  private let summaryLine: String

  /// Maps the slice's weights and sets the bounds of its cache.
  ///
  /// - Throws: ``StageError``, ``CheckpointError``, ``KernelError``, ``InternVLError``.
  public init(_ options: StageOptions, logger: Logger) throws {
    configuration = try ModelConfiguration.load(folder: options.model)
    let count = configuration.language.layerCount
    layers = try options.slice.range(of: count)
    let isLast = layers.upperBound == count
    if isLast && options.next != nil { throw StageError.nextUnexpected(role: "language") }
    if !isLast && options.next == nil {
      throw StageError.nextMissing(
        role: "language", layers: "\(layers.lowerBound)-\(layers.upperBound - 1)", of: count)
    }
    let stage = try LanguageStage(
      configuration, layers: layers, checkpoint: CheckpointReader(folder: options.model),
      device: Devices.make(options.device, threads: options.threads),
      cacheTokens: options.cacheTokens)
    worker = LanguageWorker(
      stage: stage, configuration: configuration, layers: layers,
      pictureBytes: options.pictureBytes)
    let isFirst = layers.lowerBound == 0
    let rowBytes = StageLimits.rows * configuration.language.hiddenSize * 4
    let logitBytes = StageLimits.logitRows * configuration.language.vocabularySize * 4
    let memory = StageMemory(
      weightBytes: stage.weightBytes,
      [
        ("key-value cache", stage.cache.byteLimit),
        ("computing", stage.workingBytes - stage.cache.byteLimit),
        ("a step's rows and logits", isLast ? rowBytes + logitBytes : 0),
        ("tensors on their way", options.tensorBytes),
        ("image rows", isFirst ? options.pictureBytes : 0),
      ])
    var description = StageDescription(
      role: "language", layers: layers, of: count, options: options, memory: memory,
      digest: configuration.digest)
    description.cacheTokens = stage.cache.capacity
    description.cacheBlockTokens = KeyValueCache.blockTokens
    core = StageCore(description: description, options: options, logger: logger)
    summaryLine =
      "language layers \(layers.lowerBound)-\(layers.upperBound - 1), a cache of "
      + "\(stage.cache.capacity) positions: \(memory)"
  }

  public var summary: String { summaryLine }

  public func didConnect(_ connection: Connection) { core.next?.didConnect(connection) }

  public var router: Router {
    var router = Router()
    let worker = worker
    let core = core
    core.register(
      in: &router,
      fill: { description in
        description.cacheTokensUsed = worker.cache.tokensInUse
        description.sequences = worker.cache.sequences.count
      },
      attach: { session in await core.giveBack { worker.begin(session: session) } },
      detach: { session, isOver in
        await core.giveBack { if isOver() { worker.forget(session: session) } }
      })
    // A stage that hands nothing on has nothing to wait for but its own computing.
    router.handle(Methods.LanguageModel.step, on: core.next == nil ? core.thread : nil) {
      payload, context in
      try await self.step(payload, context)
    }
    router.handle(Methods.LanguageModel.placeImage) { payload, _ in
      try await self.place(payload)
    }
    router.handle(Methods.LanguageModel.end) { payload, _ in
      await core.giveBack { worker.end(payload.message.sequences) }
      return Payload(EndReply())
    }
    return router
  }

  private func place(_ payload: Payload<EncodeRequest>) async throws -> Payload<EncodeReply> {
    let rows = try payload.onlyTensor("picture")
    let request = payload.message
    let worker = worker
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
    let worker = worker
    let steps = payload.message.steps
    let rowCount = try worker.checkShape(of: steps, tensors: payload.tensors)
    let output: Tensor
    if let next = core.next {
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

    guard let next = core.next else {
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
    var reply = try await next.call(
      Methods.LanguageModel.step, request,
      tensors: [Attachment(output.rows(0..<outcome.rows), name: "hidden")],
      deadline: context.deadline)
    reply.message.results += outcome.results
    reply.message.busyMicroseconds.append(busy)
    return reply
  }
}
