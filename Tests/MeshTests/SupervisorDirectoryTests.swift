import Glibc
import Testing

@testable import Mesh

/// The run directory: what may be wrong with it, and one mesh in each.
extension SupervisorTests {
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
}
