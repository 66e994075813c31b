import CPlatform
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

  // MARK: Services that fail

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

  // MARK: Before anything runs

  @Test func `A program that is nowhere is named with the places searched`() {
    let scratch = Scratch()
    #expect(
      throws: MeshError.executableNotFound(
        service: "a", program: "no-such-program", searched: ["/own", "/usr/bin", "/bin"])
    ) {
      try Self.supervisor(scratch, [.init(name: "a", command: ["no-such-program"])]) {
        $0.programDirectory = "/own"
      }
    }
  }

  @Test func `A program beside the running one comes before PATH`() throws {
    let scratch = Scratch()
    let own = scratch.path + "/sh"
    close(open(own, O_CREAT | O_WRONLY, 0o700))
    let search = ProgramSearch(own: scratch.path, path: "/usr/bin:/bin")
    #expect(try search.find("sh", service: "a") == own)
    chmod(own, 0o600)
    // Root may read anything, but executes only what somebody may execute.
    #expect(try search.find("sh", service: "a") != own)
  }

  @Test(
    .timeLimit(.minutes(1)),
    arguments: [("/etc/passwd", nil), ("/bin/true", "/nonexistent")] as [(String, String?)])
  func `A program that cannot be executed is an error`(
    program: String, directory: String?
  ) async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch, [.init(name: "a", command: [program], workingDirectory: directory)])
    let error = await #expect(throws: MeshError.self) { try await supervisor.run { _ in } }
    guard case .cannotStart("a", program, let reason)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(reason.contains(directory ?? "denied"))
  }

  @Test func `A socket path that the system does not take is an error`() {
    let scratch = Scratch()
    let path = "/tmp/" + String(repeating: "x", count: 103)
    #expect(throws: MeshError.socketPathTooLong(path: path, limit: 107)) {
      try Self.supervisor(
        scratch, [.init(name: "a", command: ["sh", "--vision", "unix:/tmp/a,unix:\(path)"])])
    }
    let longest = "unix:" + path.dropLast()
    #expect(throws: Never.self) {
      try Self.supervisor(scratch, [.init(name: "a", command: ["sh", "--listen", longest])])
    }
  }

  @Test(arguments: ["here.sock", "exec:a", ""])
  func `An address that nobody can be asked at is an error`(address: String) {
    let scratch = Scratch()
    #expect(
      throws: MeshError.invalidFile(
        path: "test.yaml", line: 0,
        .invalidValue(
          key: "address of a", value: address, expected: "unix:PATH or tcp:HOST:PORT"))
    ) {
      try Self.supervisor(scratch, [.init(name: "a", command: ["sh", "--listen", address])])
    }
  }

  @Test(arguments: ["/etc/passwd", "/etc/passwd/run", "/proc/chiasm"])
  func `A run directory that cannot be made is an error`(path: String) {
    let error = #expect(throws: MeshError.self) { try RunDirectory(path: path).prepare() }
    guard case .unusableDirectory(path, _)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func `A run directory that others may enter is an error`() throws {
    let scratch = Scratch()
    #expect(mkdir(scratch.run.path, 0o700) == 0)
    try scratch.run.prepare()
    chmod(scratch.run.path, 0o750)
    #expect(
      throws: MeshError.directoryNotPrivate(
        path: scratch.run.path, reason: "is open to others (mode 750)")
    ) { try scratch.run.prepare() }
  }

  @Test(.enabled(if: geteuid() == 0, "only root may give a directory away"))
  func `A run directory of another user is an error`() {
    let scratch = Scratch()
    #expect(mkdir(scratch.run.path, 0o700) == 0)
    #expect(chown(scratch.run.path, 12345, 12345) == 0)
    #expect(
      throws: MeshError.directoryNotPrivate(
        path: scratch.run.path, reason: "belongs to user 12345")
    ) { try scratch.run.prepare() }
  }

  @Test(.enabled(if: geteuid() == 0, "only root may give a link away"))
  func `A run directory that is another user's link is an error`() {
    let scratch = Scratch()
    #expect(mkdir(scratch.path + "/real", 0o700) == 0)
    #expect(symlink(scratch.path + "/real", scratch.run.path) == 0)
    #expect(throws: Never.self) { try scratch.run.prepare() }
    #expect(lchown(scratch.run.path, 12345, 12345) == 0)
    #expect(
      throws: MeshError.directoryNotPrivate(
        path: scratch.run.path, reason: "is a link of user 12345")
    ) { try scratch.run.prepare() }
  }

  @Test func `A full disk is an error of its own`() {
    #expect(throws: MeshError.noSpace(path: "/dev/full")) {
      try RunDirectory(path: "/tmp").write([1, 2, 3], to: "/dev/full")
    }
  }

  @Test(arguments: [
    (["CHIASM_RUN": "/a", "XDG_RUNTIME_DIR": "/b"], "/a"),
    (["CHIASM_RUN": "", "XDG_RUNTIME_DIR": "/b"], "/b/chiasm"),
    (["XDG_RUNTIME_DIR": "relative"], "/tmp/chiasm-\(getuid())"),
    ([:], "/tmp/chiasm-\(getuid())"),
  ])
  func `The standard directory follows the environment`(
    environment: [String: String], path: String
  ) {
    #expect(RunDirectory.standardPath(environment) == path)
  }

  // MARK: One directory, one mesh

  @Test(.timeLimit(.minutes(1)))
  func `A second mesh in the same directory is refused and names the first`() async throws {
    let scratch = Scratch()
    let first = try Self.supervisor(scratch, [Self.service("a", Self.forever, scratch)])
    try await first.run { mesh in
      let second = try Self.supervisor(scratch, [Self.service("b", "touch $D/b", scratch)])
      await #expect(
        throws: MeshError.meshRunning(directory: scratch.run.path, process: Int(getpid()))
      ) {
        try await second.run { _ in }
      }
      #expect(await mesh.snapshot()[0].state == .healthy)
      #expect(try MeshState.running(in: scratch.run).services[0].name == "a")
    }
    #expect(!scratch.exists("b"))
  }

  @Test(.timeLimit(.minutes(1)))
  func `What a dead supervisor left is cleaned up`() async throws {
    let scratch = Scratch()
    try scratch.run.prepare()
    // A process left over, a lock nobody holds, a socket nobody listens at.
    let left = try ChildProcess.start(
      .init(program: "/bin/sh", arguments: ["sh", "-c", Self.forever], environment: [:]),
      guardPipe: -1
    ) { _, _ in }
    let ticks = try #require(ProcessTable.usage(Int(left.pid))?.startTicks)
    try MeshState(
      process: 1 << 22, startTicks: 1, file: "old.yaml", model: nil,
      services: [
        .init(
          name: "a", state: .healthy, process: Int(left.pid), startTicks: ticks, address: nil,
          restarts: 0),
        // This id has gone to another process since: the test itself.
        .init(
          name: "b", state: .healthy, process: Int(getpid()), startTicks: 1, address: nil,
          restarts: 0),
      ]
    ).write(scratch.run)
    try scratch.run.write(Array("4194304\n".utf8), to: scratch.run.lockPath)
    Self.bindSocket(scratch.run.socketPath("old"))
    #expect(scratch.exists("run/old.sock"))
    let supervisor = try Self.supervisor(scratch, [Self.service("a", Self.forever, scratch)])
    try await supervisor.run { _ in
      #expect(!scratch.exists("run/old.sock"))
      let state = try MeshState.running(in: scratch.run)
      #expect(state.file == "test.yaml")
    }
    #expect(await left.exit() == .signal(15))
  }

  @Test(.timeLimit(.minutes(1)), arguments: ["", "{", "[1]", "{\"version\": 2}"])
  func `A damaged state is replaced, and no state when asked for`(text: String) async throws {
    let scratch = Scratch()
    try scratch.run.prepare()
    try scratch.run.write(Array(text.utf8), to: scratch.run.statePath)
    let error = #expect(throws: MeshError.self) { try MeshState.read(scratch.run) }
    guard case .damagedState? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    let supervisor = try Self.supervisor(scratch, [Self.service("a", Self.forever, scratch)])
    try await supervisor.run { _ in
      let state = try MeshState.running(in: scratch.run)
      #expect(state.services.count == 1)
    }
  }

  @Test(.timeLimit(.minutes(1)))
  func `A supervisor that does not stop in time is an error`() async throws {
    let scratch = Scratch()
    let supervisor = try Self.supervisor(scratch, [Self.service("a", Self.forever, scratch)])
    try await supervisor.run { _ in
      // In the supervisor's place, a process that ends, while the lock stays held.
      let other = try ChildProcess.start(
        .init(program: "/bin/sh", arguments: ["sh", "-c", Self.forever], environment: [:]),
        guardPipe: -1
      ) { _, _ in }
      var state = try MeshState.running(in: scratch.run)
      state.process = Int(other.pid)
      state.startTicks = try #require(ProcessTable.usage(Int(other.pid))?.startTicks)
      await #expect(throws: MeshError.didNotStop(process: Int(other.pid), seconds: 0)) {
        try await state.stop(scratch.run, within: .milliseconds(10))
      }
      #expect(await other.exit() == .signal(15))
    }
  }

  // MARK: Standard streams

  /// A socket that somebody listens at; nil when it cannot be had.
  static func listeningSocket(at path: String) -> Int32? {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0, listen(descriptor, 1) == 0 else {
      close(descriptor)
      return nil
    }
    return descriptor
  }

  @Test(.timeLimit(.minutes(1)))
  func `A service that speaks over its standard streams is reached at its socket, to the end`()
    async throws
  {
    let scratch = Scratch()
    let relayed = ServiceProbe(
      check: { _, _ in },
      bridge: { address, reading, writing in
        defer {
          close(reading)
          close(writing)
          unlink(String(address.dropFirst(5)))
        }
        // Something to find at the address.
        let socket = try #require(Self.listeningSocket(at: String(address.dropFirst(5))))
        defer { close(socket) }
        try await Task.sleep(for: .seconds(1000))
      })
    let supervisor = try Self.supervisor(
      scratch,
      [
        .init(name: "far", command: ["sh", "-c", "exec cat", "--stdio"]),
        // Still finds the other's socket when it is asked to stop.
        Self.service(
          "near",
          "trap 'test -S $CHIASM_RUN/far.sock && touch $D/found; exit 0' TERM; "
            + "touch $D/up; while :; do sleep 0.01; done", scratch, healthy: "test -e $D/up",
          after: [.init("far", .started)]),
      ]
    ) { $0.probe = relayed }
    try await supervisor.run { mesh in
      let status = await mesh.snapshot()[0]
      #expect(status.address == "unix:" + scratch.run.socketPath("far"))
      try await Self.until { scratch.exists("run/far.sock") }
    }
    #expect(scratch.exists("found"))
    let events = await Self.collect(supervisor)
    let order = events.compactMap { event -> String? in
      if case .stopping(let service) = event { service } else { nil }
    }
    #expect(order == ["near", "far"])
  }

  @Test(.timeLimit(.minutes(1)))
  func `A bridge that breaks before the service is healthy fails the start`() async throws {
    struct Broken: Error, CustomStringConvertible { let description = "no such wire" }
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch, [.init(name: "far", command: ["sh", "-c", Self.forever, "--stdio"])]
    ) {
      $0.probe = ServiceProbe(
        check: { _, _ in throw Broken() },
        bridge: { _, reading, writing in
          close(reading)
          close(writing)
          throw Broken()
        })
    }
    await #expect(
      throws: MeshError.notHealthy(
        service: "far", seconds: 0, reason: "its bridge failed: no such wire", lines: [])
    ) { try await supervisor.run { _ in } }
  }

  static func bindSocket(_ path: String) {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    _ = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}

@Suite struct ChildProcessTests {
  @Test func `Long lines come in pieces, and line ends of two bytes are one`() {
    var splitter = LineSplitter()
    var lines: [String] = []
    splitter.feed("a\r\nb\n\n".utf8) { lines.append($0) }
    splitter.feed(String(repeating: "x", count: LineSplitter.limit + 1).utf8) { lines.append($0) }
    splitter.finish { lines.append($0) }
    splitter.finish { lines.append($0) }
    #expect(
      lines == ["a", "b", "", String(repeating: "x", count: LineSplitter.limit), "x"])
  }

  @Test(.timeLimit(.minutes(1)))
  func `All that a process printed has arrived when its exit is known`() async throws {
    let lines = Mutex<[String]>([])
    let child = try ChildProcess.start(
      .init(program: "/usr/bin/seq", arguments: ["seq", "20000"], environment: [:]),
      guardPipe: -1
    ) { _, line in lines.withLock { $0.append(line) } }
    #expect(await child.exit() == .code(0))
    #expect(lines.withLock { $0 } == (1...20_000).map(String.init))
    // Known for good, and harmless to end again.
    child.terminate(grace: .zero)
    #expect(await child.exit() == .code(0))
  }

  @Test(.timeLimit(.minutes(1)))
  func `A process that speaks over its standard streams keeps them from the log`() async throws {
    let lines = Mutex<[String]>([])
    let child = try ChildProcess.start(
      .init(
        program: "/bin/sh", arguments: ["sh", "-c", "echo note >&2; exec cat"],
        environment: ["PATH": "/bin"], usesStandardStreams: true),
      guardPipe: -1
    ) { _, line in lines.withLock { $0.append(line) } }
    let streams = try #require(child.standardStreams)
    #expect(write(streams.input, "ping", 4) == 4)
    var bytes = [UInt8](repeating: 0, count: 16)
    #expect(read(streams.output, &bytes, bytes.count) == 4)
    #expect(bytes.prefix(4).elementsEqual("ping".utf8))
    close(streams.input)
    #expect(await child.exit() == .code(0))
    close(streams.output)
    #expect(lines.withLock { $0 } == ["note"])
  }

  @Test(.timeLimit(.minutes(1)))
  func `When the supervisor is gone, its guard ends every group, stubborn ones too`()
    async throws
  {
    var pipe: Int32 = -1
    let guardian = chiasm_guard_start(50, &pipe)
    #expect(guardian > 0)
    let scripts = [
      "exec sleep 1000", "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 1; done",
    ]
    let lines = Mutex<[String]>([])
    var children: [ChildProcess] = []
    for script in scripts {
      children.append(
        try ChildProcess.start(
          .init(
            program: "/bin/sh", arguments: ["sh", "-c", script], environment: ["PATH": "/bin"]),
          guardPipe: pipe
        ) { _, line in lines.withLock { $0.append(line) } })
    }
    let forgotten = try ChildProcess.start(
      .init(
        program: "/bin/sh", arguments: ["sh", "-c", scripts[0]], environment: ["PATH": "/bin"]),
      guardPipe: pipe
    ) { _, _ in }
    chiasm_guard_forget(pipe, forgotten.pid)
    try await SupervisorTests.until { lines.withLock { !$0.isEmpty } }
    let grandchild = try #require(Int(lines.withLock { $0[0] }))
    // What the kernel does when the supervisor ends, even by SIGKILL. The number stays taken:
    // children that end are still taken off the guard's list through it.
    let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
    #expect(dup2(null, pipe) == pipe)
    close(null)
    #expect(await children[0].exit() == .signal(15))
    #expect(await children[1].exit() == .signal(9))
    try await SupervisorTests.until { !SupervisorTests.isRunning(grandchild) }
    chiasm_process_reap(guardian)
    #expect(SupervisorTests.isRunning(Int(forgotten.pid)))
    forgotten.terminate(grace: .zero)
    _ = await forgotten.exit()
    close(pipe)
  }

  @Test func `The process table reads names with any character`() throws {
    let stat =
      "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 12345 1000 3 18446744073709551615"
    let usage = try #require(ProcessTable.parse(stat))
    #expect(usage.group == 7)
    #expect(usage.startTicks == 12345)
    #expect(usage.residentBytes == UInt64(3 * sysconf(Int32(_SC_PAGESIZE))))
    #expect(usage.cpuSeconds == 200 / Double(sysconf(Int32(_SC_CLK_TCK))))
    #expect(!usage.isZombie)
    #expect(ProcessTable.parse("7 (a") == nil)
    #expect(ProcessTable.parse("7 (a) S 1") == nil)
    #expect(ProcessTable.usage(0) == nil)
  }
}
