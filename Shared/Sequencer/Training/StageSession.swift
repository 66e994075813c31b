import Checkpoint
import Logging
import Text
import Transport

/// The stages of a mesh, without a gateway: for those who sequence them themselves.
public final class StageSession: Sendable {
  public let stages: any TrainingStages
  private let attaching: Task<Void, Never>

  /// - Throws: `CheckpointError` and `TextError` of the model's folder.
  public init(model folder: String, addresses: StageAddresses, logger: Logger) throws {
    let links = StageLinks(
      configuration: try ModelConfiguration.load(folder: folder), addresses: addresses,
      limits: GatewayLimits(), logger: logger)
    let imageToken = try Tokenizer(folder: folder).id(of: ImagePlaceholders.context)
    stages = MeshStages(
      links: links, barrier: UpdateBarrier(), imageToken: imageToken, logger: logger)
    attaching = Task { await links.run { _ in } }
  }

  /// Lets go of the stages.
  public func close() async {
    attaching.cancel()
    await attaching.value
  }
}
