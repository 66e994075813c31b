import Checkpoint
import InternVL
import Kernels
import Logging
import Messages
import Tensors
import Transport

/// A slice of the vision encoder as a service.
///
/// Pixels or hidden states come in, pass the slice's layers, and are handed to the next vision
/// stage or to the projector; the reply waits for theirs.
public final class VisionService: StageService {
  private let stage: Current<VisionStage>
  private let configuration: ModelConfiguration
  private let layers: Range<Int>
  private let core: StageCore
  private let memory: StageMemory
  let training: TrainingService

  /// Maps the slice's weights.
  ///
  /// - Throws: ``StageError``, ``CheckpointError``, ``KernelError``, ``InternVLError``.
  public init(_ options: StageOptions, logger: Logger) throws {
    configuration = try ModelConfiguration.load(folder: options.model)
    let count = configuration.usedVisionLayers
    layers = try options.slice.range(of: count, role: "vision")
    guard options.next != nil else {
      throw StageError.nextMissing(
        role: "vision", layers: "\(layers.lowerBound)-\(layers.upperBound - 1)", of: count)
    }
    let (configuration, layers) = (configuration, layers)
    let device = try Devices.make(options.device, threads: options.threads)
    let model: @Sendable () throws -> VisionStage = {
      try VisionStage(
        configuration, layers: layers, checkpoint: CheckpointReader(folder: options.model),
        device: device)
    }
    let loaded = try model()
    let stage = Current(loaded)
    self.stage = stage
    memory = StageMemory(
      weightBytes: loaded.weightBytes,
      [("computing", loaded.workingBytes), ("tensors on their way", options.tensorBytes)])
    core = StageCore(
      description: StageDescription(
        role: "vision", slices: [layers], of: count, options: options, memory: memory,
        digest: configuration.digest),
      options: options, logger: logger)
    training = TrainingService(
      core: core,
      recipe: .init(
        shape: TrainingShape(
          part: .vision,
          chunks: [
            .init(
              isFirstOfPart: layers.lowerBound == 0, isLastOfPart: layers.upperBound == count,
              next: 0)
          ]), model: options.model, device: options.device, threads: options.threads,
        pixelBytes: options.pixelBytes,
        make: { weights, device, options, _ in
          [
            try VisionTrainer(
              configuration, layers: layers, weights: weights, device: device, options: options)
          ]
        },
        serve: { slices in
          if let trainer = slices.first as? VisionTrainer { stage.value = trainer.stage }
        },
        serveModel: { stage.value = try model() }))
  }

  public var summary: String {
    "vision layers \(layers.lowerBound)-\(layers.upperBound - 1): \(memory)"
  }

  public func didConnect(_ connection: Connection) { core.next?.didConnect(connection) }

  public var router: Router {
    var router = Router()
    core.register(
      in: &router, fill: { [training] in training.fill(&$0) }, attach: { _ in },
      detach: { _, isOver in _ = isOver() })
    training.register(in: &router)
    router.handle(Methods.VisionEncoder.encode) { payload, context in
      try await self.encode(payload, context)
    }
    return router
  }

  private var isFirst: Bool { layers.lowerBound == 0 }
  private var isLast: Bool { layers.upperBound == configuration.usedVisionLayers }

  private func encode(
    _ payload: Payload<EncodeRequest>, _ context: CallContext
  ) async throws -> Payload<EncodeReply> {
    let input = try payload.onlyTensor("picture")
    let tiles = try check(input)
    guard let next = core.next else { preconditionFailure("checked at start") }
    let output = try await next.allocate(
      .float32, [tiles, configuration.visionTokenCount, configuration.vision.hiddenSize],
      deadline: context.deadline)
    let (_, busy) = try await core.compute { flag in
      let stage = self.stage.value
      for tile in 0..<tiles {
        let hidden = output[tile]
        if self.isFirst {
          try stage.embed(input[tile], into: hidden)
        } else {
          hidden.copyElements(from: input[tile])
        }
        try stage.forward(hidden, isCancelled: { flag.isCancelled })
      }
    }
    let method = isLast ? Methods.Projector.project : Methods.VisionEncoder.encode
    var reply = try await next.call(
      method, payload.message, tensors: [Attachment(output, name: "vision")],
      deadline: context.deadline)
    reply.message.busyMicroseconds.append(busy)
    if isLast && payload.message.captureVision {
      reply.tensors.append(Attachment(output, name: "vision"))
    }
    return reply
  }

  /// - Returns: the number of tiles.
  private func check(_ input: Tensor) throws -> Int {
    let size = configuration.imageSize
    let expected =
      isFirst
      ? [configuration.vision.channelCount, size, size]
      : [configuration.visionTokenCount, configuration.vision.hiddenSize]
    guard input.scalarType == .float32, input.shape.count == expected.count + 1,
      input.shape[0] > 0, input.shape[0] <= StageLimits.tiles,
      Array(input.shape.dropFirst()) == expected
    else {
      throw RPCError(
        .invalidArgument,
        "vision layers \(layers.lowerBound)-\(layers.upperBound - 1) got a \(input.scalarType) "
          + "tensor \(input.shape), expected float32 [1...\(StageLimits.tiles), "
          + expected.map(String.init).joined(separator: ", ") + "]")
    }
    return input.shape[0]
  }
}
