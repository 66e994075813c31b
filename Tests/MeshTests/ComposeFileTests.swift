import Testing

@testable import Mesh

@Suite struct ComposeFileTests {
  static func parse(
    _ text: String, _ environment: [String: String] = [:]
  ) throws(MeshError) -> ComposeFile {
    try ComposeFile.parse(Array(text.utf8), path: "mesh.yaml", environment: environment)
  }

  static func service(
    _ body: String, _ environment: [String: String] = [:]
  ) throws -> ComposeFile.Service {
    try #require(parse("services:\n  a:\n\(body)\n", environment).services.first)
  }

  // MARK: What is read

  @Test func `A service with every key is read`() throws {
    let file = try Self.parse(
      """
      x-anything: [1, 2]
      services:
        a:
          image: chiasm
          entrypoint: [nice, -n, "5"]
          command: run --listen unix:/run/a.sock
          environment: { LEVEL: 3, NAME: "x y", PASSED: , ON: true }
          working_dir: /srv
          restart: on-failure:4
          stop_grace_period: 1m30s
          cpus: 1.5
          shm_size: 64m
          init: true
          ports: ["80:8080", 90]
          networks: [inner]
          volumes: ["data:/data", ./here:/there:ro]
          deploy: { resources: { limits: { cpus: "2", memory: 4gb } } }
          healthcheck:
            test: [CMD, chiasm, health, "unix:/run/a.sock"]
            interval: 500ms
            timeout: 2s
            retries: 5
            start_period: 1h
            start_interval: 10ms
          x-note: ignored
        b:
          command: ["b", "--stdio"]
          depends_on: { a: { condition: service_healthy } }
          environment: [ONE=1, TWO=a=b, PASSED]
        c:
          command: c
          depends_on: [a, b]
      volumes: { data: }
      networks: { inner: {} }
      """)
    #expect(file.services.map(\.name) == ["a", "b", "c"])
    #expect(file.volumes == ["data"])
    let a = file.services[0]
    #expect(a.line == 3)
    #expect(a.image == "chiasm")
    #expect(a.arguments == ["nice", "-n", "5", "run", "--listen", "unix:/run/a.sock"])
    #expect(a.listenAddress == "unix:/run/a.sock")
    #expect(
      a.environment == ["LEVEL": "3", "NAME": "x y", "PASSED": String?.none, "ON": "true"])
    #expect(a.workingDirectory == "/srv")
    #expect(a.restart == .onFailure(limit: 4))
    #expect(a.stopGracePeriod == .seconds(90))
    #expect(a.cpus == 1.5)
    #expect(a.sharedMemoryBytes == 64 << 20)
    #expect(a.volumes == ["data:/data", "./here:/there:ro"])
    #expect(
      a.healthcheck
        == .init(
          test: .command(["chiasm", "health", "unix:/run/a.sock"]),
          interval: .milliseconds(500), timeout: .seconds(2), retries: 5,
          startPeriod: .seconds(3600), startInterval: .milliseconds(10)))
    let b = file.services[1]
    #expect(b.usesStandardStreams)
    #expect(b.environment == ["ONE": "1", "TWO": "a=b", "PASSED": String?.none])
    #expect(b.dependencies == [.init("a", .healthy)])
    #expect(file.services[2].dependencies == [.init("a", .started), .init("b", .started)])
  }

  @Test(arguments: [
    ("restart: no", ComposeFile.RestartPolicy.no), ("restart: \"no\"", .no),
    ("restart: false", .no), ("restart: always", .always),
    ("restart: unless-stopped", .unlessStopped), ("restart: on-failure", .onFailure(limit: nil)),
  ])
  func `Each restart policy is read`(line: String, policy: ComposeFile.RestartPolicy) throws {
    #expect(try Self.service("    command: a\n    \(line)").restart == policy)
  }

  @Test(arguments: [
    ("test: exit 0", ComposeFile.Healthcheck.Test.shell("exit 0")),
    ("test: [CMD-SHELL, exit 0]", .shell("exit 0")), ("test: [CMD, a, b]", .command(["a", "b"])),
    ("test: [NONE]", .none), ("disable: true", .none), ("{ test: a, disable: true }", .none),
  ])
  func `Each kind of health test is read`(
    line: String, test: ComposeFile.Healthcheck.Test
  ) throws {
    let service = try Self.service("    command: a\n    healthcheck:\n      \(line)")
    #expect(service.healthcheck?.test == test)
  }

  @Test func `Aliases and merge keys are expanded, a map's own keys first`() throws {
    let file = try Self.parse(
      """
      x-base: &base
        restart: always
        stop_grace_period: 3s
      x-other: &other { restart: on-failure, working_dir: /tmp }
      services:
        a:
          <<: *base
          command: &words [a, "*b", '*c']
          stop_grace_period: 5s
        b:
          <<: [*base, *other]
          command: *words
      """)
    #expect(file.services[0].restart == .always)
    #expect(file.services[0].stopGracePeriod == .seconds(5))
    #expect(file.services[0].command == ["a", "*b", "*c"])
    #expect(file.services[1].command == ["a", "*b", "*c"])
    #expect(file.services[1].restart == .always)
    #expect(file.services[1].workingDirectory == "/tmp")
  }

  @Test(arguments: [
    ("$A", "1"), ("${A}x", "1x"), ("$Ax", ""), ("$$A", "$A"), ("${A:-2}", "1"), ("${E:-2}", "2"),
    ("${E-2}", ""), ("${U-2}", "2"), ("${U:-${A}}", "1"), ("${U:-}", ""), ("${A:+3}", "3"),
    ("${U:+3}", ""), ("${E+3}", "3"), ("${E:+3}", ""), ("${A:?m}", "1"), ("${E?m}", ""),
    ("$${A}", "${A}"), ("no dollar", "no dollar"),
  ])
  func `Variables are replaced by Compose's rules`(text: String, value: String) throws {
    let service = try Self.service(
      "    command: [\"a\", \"[\(text)]\"]", ["A": "1", "E": ""])
    #expect(service.command[1] == "[\(value)]")
  }

  @Test func `A variable without value is reported`() throws {
    let file = try Self.parse("services: { a: { command: \"a $U ${V:-1}\" } }")
    #expect(file.unsetVariables == ["U"])
  }

  @Test func `Defaults within defaults have a limit`() throws {
    func nested(_ levels: Int) -> String {
      String(repeating: "${U:-", count: levels) + "x" + String(repeating: "}", count: levels)
    }
    #expect(try Self.service("    command: [\"\(nested(8))\"]").command == ["x"])
    let error = #expect(throws: MeshError.self) {
      try Self.service("    command: [\"\(nested(9))\"]")
    }
    #expect(
      error
        == .invalidFile(
          path: "mesh.yaml", line: 3,
          .badInterpolation("x", reason: "defaults are nested too deep")))
  }

  @Test func `A number in a variable is a number`() throws {
    #expect(try Self.service("    command: a\n    cpus: ${N}", ["N": "2"]).cpus == 2)
  }

  @Test(arguments: [
    ("a b", ["a", "b"]), ("  a\t b\n", ["a", "b"]), ("'a b' \"c d\"", ["a b", "c d"]),
    ("a\\ b", ["a b"]), ("\"a\\\"b\\n\"", ["a\"b\\n"]), ("''", [""]), ("a''b", ["ab"]), ("", []),
  ])
  func `Command lines are split as a shell splits them`(line: String, words: [String]) {
    #expect(ShellWords.split(line) == words)
  }

  @Test(arguments: ["'a", "\"a", "a\\"])
  func `An open quote gives no words`(line: String) {
    #expect(ShellWords.split(line) == nil)
  }

  @Test(arguments: [
    ("5s", Duration.seconds(5)), ("1m30s", .seconds(90)), ("1.5h", .seconds(5400)),
    ("20us", .microseconds(20)), ("2h3m", .seconds(7380)),
  ])
  func `Durations are read`(text: String, duration: Duration) {
    #expect(ComposeDuration.parse(text) == duration)
  }

  @Test(arguments: ["", "5", "s", "-5s", "5 s", "1e9s", "5x", "99999999h", "..s"])
  func `What is no duration is refused`(text: String) {
    #expect(ComposeDuration.parse(text) == nil)
  }

  // MARK: Order

  @Test func `Services start after those they depend on`() throws {
    let file = try Self.parse(
      """
      services:
        a: { command: a, depends_on: [c] }
        b: { command: b }
        c: { command: c, depends_on: [d] }
        d: { command: d }
      """)
    #expect(try file.startOrder().map(\.name) == ["d", "c", "a", "b"])
  }

  @Test func `A long chain of dependencies is ordered`() throws {
    let services = (0..<20_000).map {
      ComposeFile.Service(
        name: "s\($0)", command: ["a"], dependencies: $0 < 19_999 ? [.init("s\($0 + 1)")] : [])
    }
    let order = try ComposeFile(path: "", services: services).startOrder()
    #expect(order.first?.name == "s19999")
    #expect(order.count == 20_000)
  }

  // MARK: The files we ship

  static func shipped(_ name: String) -> String {
    let parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
    return (parts.dropLast(3).map(String.init) + ["compose", name]).joined(separator: "/")
  }

  @Test(arguments: [("local.yaml", 4), ("split.yaml", 6)])
  func `The files we ship are meshes`(name: String, count: Int) throws {
    let file = try ComposeFile.load(
      path: Self.shipped(name), environment: ["CHIASM_MODEL": "/my model", "CHIASM_RUN": "/r"])
    #expect(file.services.count == count)
    #expect(file.unsetVariables == [])
    #expect(try file.startOrder().last?.name == "gateway")
    let addresses = Set(file.services.compactMap(\.listenAddress))
    #expect(addresses.count == count)
    for service in file.services {
      #expect(service.model == "/my model")
      #expect(
        service.healthcheck?.test
          == .command(["chiasm", "health", "unix:/r/\(service.name).sock"]))
      // Every address that is named is one that somebody listens at.
      for word in service.arguments where word.hasPrefix("unix:") {
        for address in word.split(separator: ",") {
          #expect(addresses.contains(String(address)))
        }
      }
    }
  }

  @Test(arguments: ["local.yaml", "split.yaml"])
  func `The files we ship ask for a model`(name: String) {
    let error = #expect(throws: MeshError.self) {
      try ComposeFile.load(path: Self.shipped(name), environment: [:])
    }
    guard
      case .invalidFile(
        _, _, .requiredVariable("CHIASM_MODEL", message: "set it to a model folder"))? = error
    else {
      Issue.record("\(String(describing: error))")
      return
    }
  }
}
