import Checkpoint
import Messages
import Synchronization
import Transport

/// Stages that take calls and never answer them.
enum StuckStage {
  /// What happened to a stuck stage's calls.
  struct Calls: Sendable {
    let begun = Counter()
    let cancelled = Counter()
  }

  /// A vision stage that holds all layers.
  static func vision(_ model: GoldenModel, _ calls: Calls) throws -> Router {
    var router = try router("vision", layers: model.visionLayers, model)
    router.handle(Methods.VisionEncoder.encode) { _, _ in try await hang(calls) }
    return router
  }

  static func projector(_ model: GoldenModel, _ calls: Calls) throws -> Router {
    var router = try router("projector", layers: 1, model)
    router.handle(Methods.Projector.project) { _, _ in try await hang(calls) }
    return router
  }

  private static func hang(_ calls: Calls) async throws -> Payload<EncodeReply> {
    calls.begun.add()
    do {
      while true { try await Task.sleep(for: .seconds(600)) }
    } catch {
      calls.cancelled.add()
      throw error
    }
  }

  private static func router(_ role: String, layers: Int, _ model: GoldenModel) throws -> Router {
    var description = StageDescription()
    description.role = role
    description.endLayer = layers
    description.layerCount = layers
    description.modelDigest = try ModelConfiguration.load(folder: model.folder).digest
    var router = Router()
    router.handle(Methods.Stage.describe) { [description] _, _ in Payload(description) }
    router.handleStream(Methods.Stage.attach) { _, _, writer in
      try await writer.write(AttachReply())
      while true { try await Task.sleep(for: .seconds(600)) }
    }
    return router
  }
}
