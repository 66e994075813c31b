import Glibc
import Testing

@testable import Mesh

/// Services that fail, and are started again or not.
extension SupervisorTests {
  @Test(.timeLimit(.minutes(1)))
  func `A service that ends before it is healthy fails the start with its last lines`()
    async throws
  {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch,
      [
        Self.service(
          "a", "for i in $(seq 60); do echo line $i; done; exit 3", scratch, healthy: "false",
          restart: .always),
        Self.service("b", "touch $D/b", scratch, after: [.init("a", .healthy)]),
      ])
    await #expect(
      throws: MeshError.exitedEarly(
        service: "a", .code(3), lines: (11...60).map { "line \($0)" })
    ) {
      try await supervisor.run { _ in Issue.record("the body ran") }
    }
    #expect(!scratch.exists("b"))
  }

  @Test(.timeLimit(.minutes(1)))
  func `A service that does not get healthy in time is ended, and the check says why`()
    async throws
  {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch,
      [
        Self.service(
          "a", "echo $$ > $D/a; echo loading; \(Self.forever)", scratch,
          healthy: "echo not yet; exit 1", startPeriod: .milliseconds(300))
      ])
    let error = await #expect(throws: MeshError.self) { try await supervisor.run { _ in } }
    guard case .notHealthy("a", _, let reason, ["loading"])? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(reason.contains("exited with code 1: not yet"))
    #expect(!Self.isRunning(try scratch.process("a")))
  }

  @Test(.timeLimit(.minutes(1)))
  func `A check that hangs is ended at its timeout`() async throws {
    let scratch = Scratch()
    var service = Self.service(
      "a", Self.forever, scratch, healthy: "sleep 1000", startPeriod: .zero)
    service.healthcheck?.timeout = .milliseconds(30)
    service.healthcheck?.interval = .milliseconds(1)
    let supervisor = try Self.supervisor(scratch, [service])
    let error = await #expect(throws: MeshError.self) { try await supervisor.run { _ in } }
    #expect(error?.description.contains("SIGKILL") == true)
  }

  @Test(.timeLimit(.minutes(1)))
  func `A killed service is started again`() async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch, [Self.service("a", Self.forever, scratch, restart: .onFailure(limit: nil))])
    try await supervisor.run { mesh in
      let first = try #require(await mesh.snapshot()[0].process)
      kill(pid_t(first), SIGKILL)
      try await Self.until {
        let status = await mesh.snapshot()[0]
        return status.state == .healthy && status.process != first
      }
      let status = await mesh.snapshot()[0]
      #expect(status.restarts == 1)
      #expect(status.lastExit == "was ended by signal 9 (SIGKILL)")
      #expect(try MeshState.running(in: mesh.directory).services[0].process == status.process)
    }
    let events = await Self.collect(supervisor)
    #expect(events.contains(.exited(service: "a", .signal(9))))
    #expect(events.contains(.restarting(service: "a", after: .milliseconds(1))))
  }

  @Test(
    .timeLimit(.minutes(1)), arguments: [ComposeFile.RestartPolicy.onFailure(limit: 3), .always])
  func `Restarts pause longer and longer, and end at the limit`(
    policy: ComposeFile.RestartPolicy
  ) async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch, [Self.service("a", "echo again; exit 1", scratch, restart: policy)]
    ) {
      $0.restartLimit = 3
    }
    let error = await #expect(throws: MeshError.self) {
      try await supervisor.run { _ in try await Task.sleep(for: .seconds(1000)) }
    }
    #expect(
      error
        == .failed(
          service: "a", .code(1), restarts: 3, lines: ["again", "again", "again", "again"]))
    let pauses = await Self.collect(supervisor).compactMap { event -> Duration? in
      if case .restarting(_, let pause) = event { pause } else { nil }
    }
    #expect(pauses == [.milliseconds(1), .milliseconds(2), .milliseconds(4)])
  }

  @Test(.timeLimit(.minutes(1)))
  func `A service that may not be restarted ends the mesh when it fails`() async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch,
      [Self.service("a", "sleep 0.05; exit 4", scratch), Self.service("b", Self.forever, scratch)])
    await #expect(throws: MeshError.failed(service: "a", .code(4), restarts: 0, lines: [])) {
      try await supervisor.run { _ in try await Task.sleep(for: .seconds(1000)) }
    }
    #expect(await supervisor.snapshot().map(\.state) == [.failed, .stopped])
  }

  @Test(.timeLimit(.minutes(1)), arguments: [ComposeFile.RestartPolicy.no, .onFailure(limit: 2)])
  func `A service that has done its work stays ended`(
    policy: ComposeFile.RestartPolicy
  ) async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch,
      [
        Self.service("a", "exit 0", scratch, restart: policy),
        Self.service("b", Self.forever, scratch),
      ])
    try await supervisor.run { mesh in
      try await Self.until { await mesh.snapshot()[0].state == .stopped }
      #expect(await mesh.snapshot()[1].state == .healthy)
    }
  }

  @Test(.timeLimit(.minutes(1)))
  func `A service that stops answering is shown, and left alone`() async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch,
      [Self.service("a", "touch $D/up; \(Self.forever)", scratch, healthy: "test -e $D/up")])
    try await supervisor.run { mesh in
      let process = try #require(await mesh.snapshot()[0].process)
      unlink(scratch.path + "/up")
      try await Self.until { await mesh.snapshot()[0].state == .unhealthy }
      close(open(scratch.path + "/up", O_CREAT | O_WRONLY, 0o600))
      try await Self.until { await mesh.snapshot()[0].state == .healthy }
      #expect(await mesh.snapshot()[0].process == process)
    }
  }
}
