import Checkpoint
import InternVL
import Kernels
import Logging
import Messages
import Tensors
import Transport

/// The projector as a service: vision tokens come in, image rows go to the first language stage.
public final class ProjectorService: StageService {
  private let stage: Current<ProjectorStage>
  private let configuration: ModelConfiguration
  private let core: StageCore
  private let memory: StageMemory
  private let training: TrainingService

  /// - Throws: ``StageError``, ``CheckpointError``, ``KernelError``, ``InternVLError``.
  public init(_ options: StageOptions, logger: Logger) throws {
    configuration = try ModelConfiguration.load(folder: options.model)
    guard options.next != nil else {
      throw StageError.nextMissing(role: "projector", layers: "0-0", of: 1)
    }
    let configuration = configuration
    let device = try Devices.make(options.device, threads: options.threads)
    let model: @Sendable () throws -> ProjectorStage = {
      try ProjectorStage(
        configuration, checkpoint: CheckpointReader(folder: options.model), device: device)
    }
    let loaded = try model()
    let stage = Current(loaded)
    self.stage = stage
    memory = StageMemory(
      weightBytes: loaded.weightBytes,
      [("computing", loaded.workingBytes), ("tensors on their way", options.tensorBytes)])
    core = StageCore(
      description: StageDescription(
        role: "projector", slices: [0..<1], of: 1, options: options, memory: memory,
        digest: configuration.digest),
      options: options, logger: logger)
    training = TrainingService(
      core: core,
      recipe: .init(
        shape: TrainingShape(
          part: .projector,
          chunks: [.init(isFirstOfPart: true, isLastOfPart: true, next: 0)]),
        model: options.model, device: options.device, threads: options.threads,
        make: { weights, device, options, _ in
          [
            try ProjectorTrainer(
              configuration, weights: weights, device: device, options: options)
          ]
        },
        serve: { slices in
          if let trainer = slices.first as? ProjectorTrainer { stage.value = trainer.stage }
        },
        serveModel: { stage.value = try model() }))
  }

  public var summary: String {
    "projector: \(memory)"
  }

  public func didConnect(_ connection: Connection) { core.next?.didConnect(connection) }

  public var router: Router {
    var router = Router()
    core.register(
      in: &router, fill: { [training] in training.fill(&$0) }, attach: { _ in },
      detach: { _, isOver in _ = isOver() })
    training.register(in: &router)
    router.handle(Methods.Projector.project) { payload, context in
      try await self.project(payload, context)
    }
    return router
  }

  private func project(
    _ payload: Payload<EncodeRequest>, _ context: CallContext
  ) async throws -> Payload<EncodeReply> {
    let vision = try payload.onlyTensor("picture")
    let expected = [configuration.visionTokenCount, configuration.vision.hiddenSize]
    guard vision.scalarType == .float32, vision.shape.count == 3, vision.shape[0] > 0,
      vision.shape[0] <= StageLimits.tiles, Array(vision.shape.dropFirst()) == expected
    else {
      throw RPCError(
        .invalidArgument,
        "the projector got a \(vision.scalarType) tensor \(vision.shape), expected float32 "
          + "[1...\(StageLimits.tiles), \(expected[0]), \(expected[1])]")
    }
    guard let next = core.next else { preconditionFailure("checked at start") }
    let tiles = vision.shape[0]
    let tokens = configuration.imageTokenCount
    let rows = try await next.allocate(
      .float32, [tiles * tokens, configuration.language.hiddenSize], deadline: context.deadline)
    let (_, busy) = try await core.compute { flag in
      let stage = self.stage.value
      for tile in 0..<tiles {
        if flag.isCancelled { throw CancellationError() }
        try stage.forward(
          vision[tile], into: rows.rows(tile * tokens..<(tile + 1) * tokens))
      }
    }
    var reply = try await next.call(
      Methods.LanguageModel.placeImage, payload.message,
      tensors: [Attachment(rows, name: "projector")],
      deadline: context.deadline)
    reply.message.busyMicroseconds.append(busy)
    if payload.message.captureProjector {
      reply.tensors.append(Attachment(rows, name: "projector"))
    }
    return reply
  }
}
