import ServiceLifecycle

/// A server in the hands of a `ServiceGroup`: a graceful shutdown takes no new calls and lets
/// those that are under way finish.
public struct ServerService: Service {
  private let server: Server
  private let grace: Duration

  public init(_ server: Server, grace: Duration = .seconds(2)) {
    self.server = server
    self.grace = grace
  }

  public func run() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await server.run() }
      group.addTask {
        try await gracefulShutdown()
        await server.shutDown(grace: grace)
      }
      try await group.next()
      group.cancelAll()
    }
  }
}
