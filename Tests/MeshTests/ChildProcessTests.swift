import CPlatform
import Glibc
import Synchronization
import Testing

@testable import Mesh

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
