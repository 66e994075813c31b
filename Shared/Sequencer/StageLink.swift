import Logging
import Messages
import Synchronization
import Transport

/// The gateway's connection to one stage: kept up, and known to be up or down.
///
/// While the link's `Stage.Attach` stream is open the stage keeps what the gateway's session
/// has put there; when the stage dies, the stream's end is how the gateway learns of it.
final class StageLink: Sendable {
  enum Role: String, Sendable {
    case vision, projector, language
  }

  enum State: Sendable {
    case down(String)
    case up(StageDescription)
  }

  let role: Role
  let name: String
  let endpoint: Endpoint
  let channel: Channel
  private let state = Mutex<State>(.down("not connected yet"))
  private let session: UInt32
  private let limits: GatewayLimits
  private let logger: Logger

  init(
    role: Role, index: Int, endpoint: Endpoint, session: UInt32, limits: GatewayLimits,
    logger: Logger
  ) {
    self.role = role
    name = role == .projector ? role.rawValue : "\(role.rawValue)-\(index)"
    self.endpoint = endpoint
    channel = Channel(endpoint)
    self.session = session
    self.limits = limits
    self.logger = logger
  }

  var current: State { state.withLock { $0 } }

  var description: StageDescription? {
    if case .up(let description) = current { description } else { nil }
  }

  /// Attaches again and again until the task is cancelled, telling `changed` of every coming
  /// and going.
  func keepAttached(changed: @escaping @Sendable (StageLink) async -> Void) async {
    var pause = Duration.milliseconds(20)
    while !Task.isCancelled {
      do {
        let description = try await channel.call(
          Methods.Stage.describe, DescribeRequest(), deadline: .after(.seconds(5))
        ).message
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask { try await self.attach(description, changed) }
          group.addTask { try await self.watch(changed) }
          defer { group.cancelAll() }
          try await group.next()
        }
        pause = .milliseconds(20)
        await goDown("it closed the connection", changed)
      } catch {
        if Task.isCancelled { return }
        await goDown("\(error)", changed)
      }
      try? await Task.sleep(for: pause)
      pause = min(pause * 2, .milliseconds(500))
    }
  }

  /// Holds the `Stage.Attach` stream open.
  private func attach(
    _ description: StageDescription, _ changed: @Sendable (StageLink) async -> Void
  ) async throws {
    for try await _ in channel.stream(Methods.Stage.attach, AttachRequest(session: session)) {
      state.withLock { $0 = .up(description) }
      logger.info("stage attached", metadata: ["stage": "\(name)", "at": "\(endpoint)"])
      await changed(self)
    }
  }

  /// Asks again and again whether the stage is still there: one that hangs closes no connection.
  ///
  /// Health is answered beside the computing, so a busy stage answers too.
  private func watch(_ changed: @Sendable (StageLink) async -> Void) async throws {
    while true {
      try await Task.sleep(for: limits.heartbeat)
      let connection = try await channel.connection(deadline: .after(.seconds(5)))
      do {
        _ = try await connection.call(
          Methods.Health.check, HealthCheckRequest(), deadline: .after(limits.silence))
      } catch {
        // First, so that nothing is sent there once the calls under way have ended.
        await goDown("\(error)", changed)
        connection.close()
        throw error
      }
    }
  }

  /// Returns when the stage is down, or after a while.
  func lost(within limit: Duration) async {
    let deadline = Deadline.after(limit)
    while description != nil, !deadline.isPassed, !Task.isCancelled {
      try? await Task.sleep(for: .milliseconds(2))
    }
  }

  private func goDown(_ reason: String, _ changed: @Sendable (StageLink) async -> Void) async {
    let wasUp = state.withLock { state in
      defer { state = .down(reason) }
      if case .up = state { return true } else { return false }
    }
    if wasUp {
      logger.warning("stage lost", metadata: ["stage": "\(name)", "reason": "\(reason)"])
      await changed(self)
    }
  }
}
