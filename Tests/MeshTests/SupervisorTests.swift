import Glibc
import Synchronization
import Testing

@testable import Mesh

/// Meshes of small shell scripts.
@Suite struct SupervisorTests {
  // MARK: Scaffolding

  /// A directory of a test's own, removed with it.
  final class Scratch: Sendable {
    let path: String

    init() {
      var template = Array("/tmp/mesh-XXXXXX".utf8CString)
      guard mkdtemp(&template) != nil else { preconditionFailure("no directory for a test") }
      path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { system("rm -rf \(path)") }

    var run: RunDirectory { RunDirectory(path: path + "/run") }

    func read(_ name: String) -> String {
      let bytes = (try? BoundedFile.read("\(path)/\(name)", limit: 1 << 20)) ?? []
      return String(decoding: bytes, as: UTF8.self)
    }

    func exists(_ name: String) -> Bool { access("\(path)/\(name)", F_OK) == 0 }

    /// The process id that a script wrote to a file.
    func process(_ name: String) throws -> Int {
      try #require(Int(read(name).filter { $0 != "\n" }))
    }
  }

  /// A service that runs a script; `$D` in it is the scratch directory.
  static func service(
    _ name: String, _ script: String, _ scratch: Scratch, healthy: String? = nil,
    after: [ComposeFile.Dependency] = [], restart: ComposeFile.RestartPolicy = .no,
    grace: Duration = .seconds(20), startPeriod: Duration = .seconds(60)
  ) -> ComposeFile.Service {
    ComposeFile.Service(
      name: name, command: ["sh", "-c", script], environment: ["D": scratch.path],
      healthcheck: healthy.map {
        .init(
          test: .shell($0), interval: .milliseconds(20), timeout: .seconds(20), retries: 3,
          startPeriod: startPeriod, startInterval: .milliseconds(20))
      },
      dependencies: after, restart: restart, stopGracePeriod: grace)
  }

  static let probe = ServiceProbe(
    check: { _, _ in },
    bridge: { _, reading, writing in
      close(reading)
      close(writing)
    })

  static func supervisor(
    _ scratch: Scratch, _ services: [ComposeFile.Service],
    _ change: (inout Supervisor.Options) -> Void = { _ in }
  ) throws -> Supervisor {
    var options = Supervisor.Options(
      directory: scratch.run.path,
      environment: ["PATH": "/usr/bin:/bin", "D": scratch.path], probe: probe)
    options.firstPause = .milliseconds(1)
    options.longestPause = .milliseconds(4)
    change(&options)
    return try Supervisor(
      file: ComposeFile(path: "test.yaml", services: services), options: options)
  }

  /// Waits for something that is sure to come; the test's own time limit is the only one.
  static func until(_ condition: () async throws -> Bool) async throws {
    while try await !condition() { try await Task.sleep(for: .milliseconds(5)) }
  }

  static func isRunning(_ process: Int) -> Bool {
    ProcessTable.usage(process).map { !$0.isZombie } ?? false
  }

  static func collect(_ supervisor: Supervisor) async -> [MeshEvent] {
    var events: [MeshEvent] = []
    for await event in supervisor.events { events.append(event) }
    return events
  }

  static let forever = "exec sleep 1000"

  // MARK: Starting and stopping

  @Test(.timeLimit(.minutes(1)))
  func `Services start after their dependencies are healthy, and stop in reverse`() async throws {
    let scratch = Scratch()
    let script = { (name: String) in
      "trap 'echo \(name) stops >> $D/log; exit 0' TERM; echo \(name) starts >> $D/log; "
        + "sleep 0.1; touch $D/\(name).up; while :; do sleep 0.01; done"
    }
    let supervisor = try Self.supervisor(
      scratch,
      [
        Self.service(
          "c", script("c"), scratch, healthy: "test -e $D/c.up",
          after: [.init("b", .healthy)]),
        Self.service(
          "b", script("b"), scratch, healthy: "test -e $D/b.up && echo b healthy >> $D/log",
          after: [.init("a", .healthy)]),
        Self.service(
          "a", script("a"), scratch, healthy: "test -e $D/a.up && echo a healthy >> $D/log"),
      ])
    let statuses = try await supervisor.run { mesh in await mesh.snapshot() }
    #expect(statuses.map(\.name) == ["a", "b", "c"])
    #expect(statuses.allSatisfy { $0.state == .healthy })
    for status in statuses {
      #expect(try #require(status.residentBytes) > 0)
      #expect(try #require(status.uptimeSeconds) >= 0)
      #expect(!Self.isRunning(try #require(status.process)))
    }
    // Checks go on while later services start; the first of each is what counts.
    var log: [String] = []
    for line in scratch.read("log").split(separator: "\n").map(String.init)
    where !log.contains(line) {
      log.append(line)
    }
    #expect(
      log == [
        "a starts", "a healthy", "b starts", "b healthy", "c starts", "c stops", "b stops",
        "a stops",
      ])
    let events = await Self.collect(supervisor)
    #expect(events.filter { $0 == .ready }.count == 1)
    #expect(events.suffix(2) == [.exited(service: "a", .code(0)), .stopped(service: "a")])
  }

  @Test(.timeLimit(.minutes(1)))
  func `A stopped mesh leaves no file and no process`() async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch,
      [
        // Ignores SIGTERM, and so does its own child.
        Self.service(
          "stubborn",
          "trap '' TERM; sleep 1000 & echo $! > $D/child; echo $$ > $D/parent; touch $D/up; "
            + "while :; do sleep 1; done", scratch, healthy: "test -e $D/up",
          grace: .milliseconds(50)),
        Self.service("plain", Self.forever, scratch),
      ])
    try await supervisor.run { mesh in
      #expect(access(mesh.directory.statePath, F_OK) == 0)
      let state = try MeshState.running(in: mesh.directory)
      #expect(state.process == Int(getpid()))
      #expect(state.services.map(\.state) == [.healthy, .healthy])
    }
    let events = await Self.collect(supervisor)
    #expect(events.contains(.exited(service: "stubborn", .signal(9))))
    #expect(events.contains(.exited(service: "plain", .signal(15))))
    #expect(!Self.isRunning(try scratch.process("parent")))
    let child = try scratch.process("child")
    try await Self.until { !Self.isRunning(child) }
    #expect(!scratch.exists("run/mesh.json"))
    #expect(!scratch.exists("run/lock"))
    #expect(throws: MeshError.noMesh(directory: scratch.run.path)) {
      try MeshState.running(in: scratch.run)
    }
  }

  @Test(.timeLimit(.minutes(1)))
  func `Cancelling the task stops the mesh`() async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(scratch, [Self.service("a", Self.forever, scratch)])
    let started = AsyncStream<Int>.makeStream()
    let task = Task {
      try await supervisor.run { mesh in
        started.continuation.yield(try #require(await mesh.snapshot()[0].process))
        try await Task.sleep(for: .seconds(1000))
      }
    }
    var iterator = started.stream.makeAsyncIterator()
    let process = try #require(await iterator.next())
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(!Self.isRunning(process))
  }

  @Test(.timeLimit(.minutes(1)))
  func `An error of the body stops the mesh and is passed on`() async throws {
    struct Oops: Error {}
    let scratch = Scratch()
    let supervisor = try Self.supervisor(scratch, [Self.service("a", Self.forever, scratch)])
    await #expect(throws: Oops.self) { try await supervisor.run { _ in throw Oops() } }
    #expect(!scratch.exists("run/lock"))
  }

  @Test(.timeLimit(.minutes(1)))
  func `Services see the mesh's directory, their environment and their lines are told apart`()
    async throws
  {
    let scratch = Scratch()
    let lines = Mutex<[ServiceLine]>([])
    var service = Self.service(
      "a", "echo $CHIASM_RUN; printf 'no end' >&2; pwd; touch $D/up; \(Self.forever)", scratch,
      healthy: "test -e $D/up")
    service.workingDirectory = "/usr"
    let supervisor = try Self.supervisor(scratch, [service]) {
      $0.onLine = { line in lines.withLock { $0.append(line) } }
    }
    try await supervisor.run { mesh in
      try await Self.until { await mesh.lastLines(of: "a").count == 2 }
    }
    let output = lines.withLock { $0.filter { !$0.isError }.map(\.text) }
    #expect(output == [scratch.run.path, "/usr"])
    let errors = lines.withLock { $0.filter(\.isError) }
    #expect(errors == [ServiceLine(service: "a", isError: true, text: "no end")])
  }
}
