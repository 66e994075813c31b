import Messages
import Transport

extension ServiceProbe {
  /// Talks to services over the mesh's wire.
  public static let transport = ServiceProbe(
    check: checkHealth, describe: describeStage, bridge: bridgeStreams)

  /// A service that answers, but not that it serves.
  struct NotServing: Error, Equatable, CustomStringConvertible {
    var address: String
    var status: ServingStatus

    var description: String { "\(address) answers \(status)" }
  }

  @Sendable private static func checkHealth(_ address: String, _ timeout: Duration) async throws {
    let deadline = Deadline.after(timeout)
    let connection = try await Connection.connect(
      to: Endpoint(parsing: address), deadline: deadline)
    defer { connection.close() }
    let reply = try await connection.call(
      Methods.Health.check, HealthCheckRequest(), deadline: deadline)
    guard reply.message.status == .serving else {
      throw NotServing(address: address, status: reply.message.status)
    }
  }

  @Sendable private static func describeStage(
    _ address: String, _ timeout: Duration
  ) async -> StageFacts? {
    let deadline = Deadline.after(timeout)
    guard let endpoint = try? Endpoint(parsing: address),
      let connection = try? await Connection.connect(to: endpoint, deadline: deadline)
    else { return nil }
    defer { connection.close() }
    // A gateway has no such method: it is no stage.
    guard
      let stage = try? await connection.call(
        Methods.Stage.describe, DescribeRequest(), deadline: deadline
      ).message
    else { return nil }
    return StageFacts(
      role: stage.role, firstLayer: stage.firstLayer, endLayer: stage.endLayer,
      layerCount: stage.layerCount, device: stage.device,
      weightBytes: UInt64(clamping: stage.weightBytes),
      cacheTokens: UInt64(clamping: stage.cacheTokens),
      cacheTokensUsed: UInt64(clamping: stage.cacheTokensUsed))
  }

  @Sendable private static func bridgeStreams(
    _ address: String, _ reading: Int32, _ writing: Int32
  ) async throws {
    // Transport connects to addresses, not to descriptors.
    let path = address.dropFirst("unix:".count) + ".relay"
    let relay = try StreamRelay.start(path: String(path), reading: reading, writing: writing)
    defer { relay.stop() }
    let channel = Channel(.unix(path: relay.path))
    defer { channel.close() }
    let server = try Server(
      Endpoint(parsing: address), router: Bridge.router(to: channel))
    try await server.run()
  }
}
