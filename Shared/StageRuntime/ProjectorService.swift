import Checkpoint
import InternVL
import Kernels
import Logging
import Messages
import Tensors
import Transport

/// The projector as a service: vision tokens come in, image rows go to the first language stage.
public final class ProjectorService: StageService {
  private let stage: ProjectorStage
  private let configuration: ModelConfiguration
  private let core: StageCore
  private let memory: StageMemory

  /// - Throws: ``StageError``, ``CheckpointError``, ``KernelError``, ``InternVLError``.
  public init(_ options: StageOptions, logger: Logger) throws {
    configuration = try ModelConfiguration.load(folder: options.model)
    guard options.next != nil else {
      throw StageError.nextMissing(role: "projector", layers: "0-0", of: 1)
    }
    stage = try ProjectorStage(
      configuration, checkpoint: CheckpointReader(folder: options.model),
      device: Devices.make(options.device, threads: options.threads))
    memory = StageMemory(
      weightBytes: stage.weightBytes,
      [("computing", stage.workingBytes), ("tensors on their way", options.tensorBytes)])
    core = StageCore(
      description: StageDescription(
        role: "projector", layers: 0..<1, of: 1, options: options, memory: memory,
        digest: configuration.digest),
      options: options, logger: logger)
  }

  public var summary: String {
    "projector: \(memory)"
  }

  public func didConnect(_ connection: Connection) { core.next?.didConnect(connection) }

  public var router: Router {
    var router = Router()
    core.register(
      in: &router, fill: { _ in }, attach: { _ in }, detach: { _, isOver in _ = isOver() })
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
      for tile in 0..<tiles {
        if flag.isCancelled { throw CancellationError() }
        try self.stage.forward(
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
