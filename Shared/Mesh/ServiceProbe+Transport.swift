import Messages
import Synchronization
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

  /// Joins a service's standard streams with a socket at `address`, and with the services whose
  /// sockets lie beside it: a call that the service makes goes to the one that its authority
  /// names.
  @Sendable private static func bridgeStreams(
    _ address: String, _ reading: Int32, _ writing: Int32
  ) async throws {
    let neighbours = Neighbours(of: address)
    // A service reads its weights before it says hello; how long it may take is the supervisor's
    // to decide, which cancels.
    var options = ConnectionOptions()
    options.handshakeTimeout = .seconds(24 * 3600)
    let connection = try await Connection.connect(
      reading: reading, writing: writing, peer: "the service behind \(address)",
      options: options,
      router: Bridge.router { context in
        let channel = try neighbours.channel(named: context.authority ?? "")
        return (try await channel.connection(deadline: context.deadline), authority: nil)
      }, deadline: .after(options.handshakeTimeout))
    defer { connection.close() }
    let server = try Server(
      Endpoint(parsing: address), router: Bridge.router { _ in (connection, authority: nil) })
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await server.run() }
      group.addTask {
        await connection.closed()
        await server.shutDown(grace: .zero)
      }
      defer { group.cancelAll() }
      try await group.next()
      connection.close()
    }
  }
}

/// The services of a mesh as one behind a bridge can call them: by name.
private final class Neighbours: Sendable {
  private let folder: String
  private let channels = Mutex<[String: Channel]>([:])

  init(of address: String) {
    let path = address.dropFirst("unix:".count)
    folder = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
  }

  /// - Throws: NOT_FOUND for what is no name of a service.
  func channel(named name: String) throws -> Channel {
    let isName =
      !name.isEmpty
      && name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
          true
        default: false
        }
      }
    guard isName else {
      throw RPCError(.notFound, "\"\(name)\" is no service of this mesh; give --next peer:NAME")
    }
    return channels.withLock { channels in
      if let channel = channels[name] { return channel }
      let channel = Channel(.unix(path: "\(folder)/\(name).sock"))
      channels[name] = channel
      return channel
    }
  }
}
