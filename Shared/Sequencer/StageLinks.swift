import Checkpoint
import Logging
import Messages
import Transport

/// All stages of a mesh as the gateway sees them, in the order in which data crosses them.
actor StageLinks {
  nonisolated let vision: [StageLink]
  nonisolated let projector: StageLink
  nonisolated let language: [StageLink]
  nonisolated let session: UInt32

  private let configuration: ModelConfiguration
  private var waiters: [UInt64: CheckedContinuation<Void, any Error>] = [:]
  private var nextWaiter: UInt64 = 0

  init(
    configuration: ModelConfiguration, addresses: StageAddresses, limits: GatewayLimits,
    logger: Logger
  ) {
    self.configuration = configuration
    let session = UInt32.random(in: 1...UInt32.max)
    self.session = session
    func links(_ role: StageLink.Role, _ endpoints: [Endpoint]) -> [StageLink] {
      endpoints.enumerated().map {
        StageLink(
          role: role, index: $0.offset, endpoint: $0.element, session: session, limits: limits,
          logger: logger)
      }
    }
    vision = links(.vision, addresses.vision)
    projector = StageLink(
      role: .projector, index: 0, endpoint: addresses.projector, session: session, limits: limits,
      logger: logger)
    language = links(.language, addresses.language)
  }

  nonisolated var all: [StageLink] { vision + [projector] + language }

  /// Why requests cannot be answered now; nil when they can.
  nonisolated var obstacle: String? {
    for link in all {
      if case .down(let reason) = link.current {
        return "\(link.name) at \(link.endpoint) is not ready: \(reason)"
      }
    }
    let digests = Set(all.compactMap { $0.description?.modelDigest })
    if digests.count > 1 || digests.first != configuration.digest {
      return "the stages hold different models; start them all, and the gateway, with one --model"
    }
    return coverObstacle(vision, layers: configuration.usedVisionLayers)
      ?? coverObstacle([projector], layers: 1)
      ?? coverObstacle(language, layers: configuration.language.layerCount)
  }

  /// Positions of the smallest cache among the language stages, and the size of its blocks; none
  /// while requests cannot be answered.
  nonisolated var cache: (positions: Int, block: Int) {
    guard obstacle == nil else { return (0, 1) }
    let descriptions = language.compactMap(\.description)
    return (
      descriptions.map(\.cacheTokens).min() ?? 0,
      max(1, descriptions.map(\.cacheBlockTokens).max() ?? 1)
    )
  }

  /// Keeps every stage attached until the task is cancelled.
  func run(changed: @escaping @Sendable (StageLink) async -> Void) async {
    await withDiscardingTaskGroup { group in
      for link in all {
        group.addTask {
          await link.keepAttached { link in
            await changed(link)
            await self.wake()
          }
        }
      }
    }
  }

  /// Waits until requests can be answered.
  ///
  /// - Throws: UNAVAILABLE with what is in the way after `duration`; `CancellationError`.
  func ready(within duration: Duration) async throws {
    if obstacle == nil { return }
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.wait() }
      group.addTask {
        try await Task.sleep(for: duration)
        throw RPCError(.unavailable, self.obstacle ?? "the stages are coming and going")
      }
      defer { group.cancelAll() }
      try await group.next()
    }
  }

  private func wait() async throws {
    while obstacle != nil {
      let id = nextWaiter
      nextWaiter += 1
      try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation {
          (continuation: CheckedContinuation<Void, any Error>) in
          if Task.isCancelled {
            continuation.resume(throwing: CancellationError())
          } else {
            waiters[id] = continuation
          }
        }
      } onCancel: {
        Task { await self.abandon(id) }
      }
    }
  }

  private func wake() {
    let woken = waiters.values
    waiters.removeAll()
    for continuation in woken { continuation.resume() }
  }

  private func abandon(_ id: UInt64) {
    waiters.removeValue(forKey: id)?.resume(throwing: CancellationError())
  }

  /// Says where the slices of one model part leave a gap or overlap.
  private nonisolated func coverObstacle(_ links: [StageLink], layers: Int) -> String? {
    for link in links {
      guard let description = link.description, description.role != link.role.rawValue else {
        continue
      }
      return "\(link.endpoint) is a \(description.role) stage, not \(link.name)"
    }
    // Stages with several slices form a ring: all first ones, then all second ones.
    let slices = links.map { $0.description?.allSlices ?? [] }
    var next = 0
    for chunk in 0..<(slices.map(\.count).max() ?? 0) {
      for (link, own) in zip(links, slices) where !own.isEmpty {
        guard chunk < own.count else {
          return "\(link.name) holds \(own.count) slices of layers, others more; "
            + "give all language stages as many"
        }
        guard own[chunk].firstLayer == next else {
          return "\(link.name) begins at layer \(own[chunk].firstLayer), expected \(next); "
            + "check --layers or --stage in the mesh file"
        }
        next = own[chunk].endLayer
      }
    }
    return next == layers
      ? nil
      : "the \(links.first?.role.rawValue ?? "") stages end at layer \(next) of \(layers); "
        + "check --layers or --stage in the mesh file"
  }
}

extension StageDescription {
  /// The slices of layers that the stage holds.
  var allSlices: [LayerRange] {
    slices.isEmpty ? [LayerRange(firstLayer: firstLayer, endLayer: endLayer)] : slices
  }
}

/// Where the stages of a mesh listen.
public struct StageAddresses: Sendable {
  public var vision: [Endpoint]
  public var projector: Endpoint
  public var language: [Endpoint]

  public init(vision: [Endpoint], projector: Endpoint, language: [Endpoint]) {
    self.vision = vision
    self.projector = projector
    self.language = language
  }
}
