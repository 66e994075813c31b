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

  // MARK: What is refused

  static let file: [(String, Int, ComposeProblem)] = [
    ("", 1, .noServices),
    ("# nothing\n", 1, .noServices),
    ("x-a: 1\n", 1, .noServices),
    ("x-a: 1\nservices: {}\n", 2, .noServices),
    ("[]", 1, .wrongType(key: "the file", expected: "a map", found: "a list")),
    ("services:\n", 1, .wrongType(key: "services", expected: "a map", found: "nothing")),
    ("servces: {}", 1, .unknownKey("servces", of: "the file", nearest: "services")),
    ("name: a", 1, .unknownKey("name", of: "the file", nearest: nil)),
    ("services: {a: {command: a}}\nservices: {}", 1, .duplicateKey("services")),
    ("services:\n  a: {command: a}\n  a: {command: b}\n", 2, .duplicateKey("a")),
    ("services:\n\ta: 1\n", 2, .tabIndentation),
    ("services: {a: {command: a}\n", 2, .syntax("")),
    ("services: {a: {command: a}}\n---\nb: 1\n", 2, .syntax("")),
    ("services: *a\n", 1, .unknownAlias("a")),
    ("services: !!map {}\n", 1, .tag("tag:yaml.org,2002:map")),
    ("services: {a: {command: !x a}}\n", 1, .tag("!x")),
    ("? [a]\n: 1\n", 1, .complexKey),
    ("x-a: &a b\n*a : 1\n", 2, .complexKey),
    ("x-a:\n  <<: 5\n", 2, .badMerge),
    ("x-a:\n  <<: [{}, 5]\n", 2, .badMerge),
    ("a: \u{1}\n", 1, .controlCharacter(1)),
    ("a:\n  - \u{E000}\n", 2, .controlCharacter(0xE000)),
    (String(repeating: "[", count: 5000), 1, .tooDeep(limit: 32)),
    ("a:\n" + String(repeating: "- ", count: 5000), 2, .tooDeep(limit: 32)),
    ("x-a: \(String(repeating: "- ", count: 40))1", 1, .syntax("")),
    ("x-a:\n  \(String(repeating: "- ", count: 40))1", 2, .tooDeep(limit: 32)),
    ("services: {a b: {command: a}}", 1, .invalidServiceName("a b")),
    ("services: {../a: {command: a}}", 1, .invalidServiceName("../a")),
    (
      "services:\n  a: {command: a, depends_on: [bb]}\n  bbb: {command: b}", 2,
      .unknownDependency("bb", nearest: "bbb")
    ),
    (
      "services:\n  a: {command: a, depends_on: [b]}\n  b: {command: b, depends_on: [c]}\n"
        + "  c: {command: c, depends_on: [b]}",
      4, .dependencyCycle(["b", "c", "b"])
    ),
    ("services: {a: {command: a, depends_on: [a]}}", 1, .dependencyCycle(["a", "a"])),
    ("x-a: ${\nservices: {}", 1, .badInterpolation("${", reason: "the brace has no end")),
  ]

  @Test(arguments: file)
  func `A broken file is refused with its line`(text: String, line: Int, problem: ComposeProblem) {
    do {
      _ = try Self.parse(text)
      Issue.record("\(text.prefix(60)) was accepted")
    } catch .invalidFile(let path, let foundLine, let found) {
      #expect(path == "mesh.yaml")
      #expect(foundLine == line)
      // The parser's own words are not ours to pin.
      if case .syntax(let words) = found, problem == .syntax("") {
        #expect(!words.isEmpty)
      } else {
        #expect(found == problem)
      }
    } catch {
      Issue.record("\(error)")
    }
  }

  static let service: [(String, ComposeProblem)] = [
    ("comand: a", .unknownKey("comand", of: "service a", nearest: "command")),
    ("enviroment: {}", .unknownKey("enviroment", of: "service a", nearest: "environment")),
    ("privileged: true", .unknownKey("privileged", of: "service a", nearest: nil)),
    ("image: a", .missingKey("command", of: "service a")),
    ("command: []", .missingKey("command", of: "service a")),
    (
      "command: [\"\"]", .invalidValue(key: "command", value: "", expected: "the name of a program")
    ),
    ("command: 5", .wrongType(key: "command", expected: "text in quotes", found: "a number")),
    (
      "command: {a: b}",
      .wrongType(key: "command", expected: "text or a list of texts", found: "a map")
    ),
    (
      "command: [a, true]",
      .wrongType(key: "command", expected: "text in quotes", found: "a boolean")
    ),
    ("command: \"a 'b\"", .unbalancedQuote("a 'b")),
    (
      "command: [a, \"\\0\"]",
      .invalidValue(key: "command", value: "\\0", expected: "text without a zero byte")
    ),
    ("environment: a", .wrongType(key: "environment", expected: "a map or a list", found: "text")),
    (
      "environment: {A: [1]}",
      .wrongType(key: "environment.A", expected: "text or a number", found: "a list")
    ),
    ("environment: [A=1, A=2]", .duplicateKey("A")),
    (
      "environment: [=1]",
      .invalidValue(key: "environment", value: "", expected: "NAME or NAME=value")
    ),
    (
      "restart: sometimes",
      .invalidValue(
        key: "restart", value: "sometimes",
        expected: "no, always, unless-stopped, on-failure or on-failure:N")
    ),
    (
      "restart: on-failure:-1",
      .invalidValue(
        key: "restart", value: "on-failure:-1",
        expected: "no, always, unless-stopped, on-failure or on-failure:N")
    ),
    (
      "stop_grace_period: 10",
      .wrongType(key: "stop_grace_period", expected: "text in quotes", found: "a number")
    ),
    (
      "stop_grace_period: soon",
      .invalidValue(
        key: "stop_grace_period", value: "soon", expected: "a duration such as 500ms, 30s or 1m30s")
    ),
    ("cpus: 0", .invalidValue(key: "cpus", value: "0", expected: "a number above 0")),
    ("cpus: many", .invalidValue(key: "cpus", value: "many", expected: "a number above 0")),
    (
      "shm_size: 1zb",
      .invalidValue(key: "shm_size", value: "1zb", expected: "a size such as 64m or 2gb")
    ),
    ("init: maybe", .invalidValue(key: "init", value: "maybe", expected: "true or false")),
    ("volumes: a", .wrongType(key: "volumes", expected: "a list", found: "text")),
    ("volumes: [data:/data]", .unknownVolume("data")),
    (
      "volumes: [/data]",
      .invalidValue(key: "volumes", value: "/data", expected: "source:/absolute/target or …:ro")
    ),
    ("networks: [inner]", .unknownNetwork("inner")),
    ("deploy: {replicas: 2}", .unknownKey("replicas", of: "deploy of service a", nearest: nil)),
    (
      "deploy: {resources: {limit: {}}}",
      .unknownKey("limit", of: "resources of service a", nearest: "limits")
    ),
    ("depends_on: {b: {}}", .missingKey("condition", of: "depends_on.b of service a")),
    (
      "depends_on: {b: {condition: service_ready}}",
      .invalidValue(
        key: "condition", value: "service_ready", expected: "service_started or service_healthy")
    ),
    ("depends_on: [b, b]", .duplicateKey("b")),
    ("depends_on: b", .wrongType(key: "depends_on", expected: "a list or a map", found: "text")),
    ("healthcheck: {}", .missingKey("test", of: "healthcheck of service a")),
    (
      "healthcheck: {test: [a]}",
      .invalidValue(
        key: "test", value: "a", expected: "[NONE], [CMD, program, arguments…] or [CMD-SHELL, line]"
      )
    ),
    (
      "healthcheck: {test: a, retries: 0}",
      .invalidValue(key: "retries", value: "0", expected: "a whole number from 1 to 1000")
    ),
    (
      "healthcheck: {test: a, interval: 0s}",
      .invalidValue(
        key: "interval", value: "0s", expected: "a duration such as 500ms, 30s or 1m30s")
    ),
    (
      "healthcheck: {test: a, retry: 1}",
      .unknownKey("retry", of: "healthcheck of service a", nearest: nil)
    ),
    ("command: [a, \"${A:?give a folder}\"]", .requiredVariable("A", message: "give a folder")),
    ("command: [a, \"${A?}\"]", .requiredVariable("A", message: "")),
    ("command: [a, \"${9}\"]", .badInterpolation("${9}", reason: "no name follows the brace")),
    (
      "command: [a, \"${A*3}\"]",
      .badInterpolation("${A*3}", reason: "after the name come :-, -, :?, ?, :+ or +")
    ),
    ("command: [a, \"a $\"]", .badInterpolation("$", reason: "no name follows the $")),
  ]

  @Test(arguments: service)
  func `A broken service is refused with its line`(body: String, problem: ComposeProblem) {
    let hasCommand = body.hasPrefix("command") || body.hasPrefix("image") || body.hasPrefix("com")
    let command = hasCommand ? "" : "    command: a\n"
    let text = "services:\n  a:\n\(command)    \(body)\n"
    // What a service lacks is reported at its name.
    let isLack =
      problem == .missingKey("command", of: "service a")
      || problem == .invalidValue(key: "command", value: "", expected: "the name of a program")
    #expect(
      throws: MeshError.invalidFile(
        path: "mesh.yaml", line: isLack ? 2 : hasCommand ? 3 : 4, problem)
    ) {
      try Self.parse(text)
    }
  }

  @Test func `Waiting for the health of an unchecked service is refused`() {
    let error = #expect(throws: MeshError.self) {
      try Self.parse(
        """
        services:
          a: { command: a, depends_on: { b: { condition: service_healthy } } }
          b: { command: b, healthcheck: { disable: true } }
        """)
    }
    #expect(error?.description.contains("mesh.yaml:2: depends_on.b.condition") == true)
  }

  @Test func `Aliases of aliases do not expand without end`() {
    var text = "x-0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in 1...20 {
      let items = Array(repeating: "*a\(level - 1)", count: 9).joined(separator: ", ")
      text += "x-\(level): &a\(level) [\(items)]\n"
    }
    let error = #expect(throws: MeshError.self) { try Self.parse(text) }
    guard case .invalidFile(_, _, .tooManyNodes)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func `An alias as part of a key is refused before it is expanded`() {
    var text = "x-0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in 1...20 {
      let items = Array(repeating: "*a\(level - 1)", count: 9).joined(separator: ", ")
      text += "? &a\(level) [\(items)]\n: 1\n"
    }
    #expect(throws: MeshError.invalidFile(path: "mesh.yaml", line: 2, .complexKey)) {
      try Self.parse(text)
    }
  }

  @Test func `An alias of the value it stands in is refused`() {
    #expect(throws: MeshError.invalidFile(path: "mesh.yaml", line: 1, .unknownAlias("a"))) {
      try Self.parse("x-a: &a [*a]\n")
    }
  }

  @Test func `A file past the size limit is refused`() {
    let text = "# " + String(repeating: "x", count: YAMLTree.byteLimit)
    #expect(
      throws: MeshError.invalidFile(
        path: "mesh.yaml", line: 1,
        .tooLarge(bytes: text.utf8.count, limit: YAMLTree.byteLimit))
    ) {
      try Self.parse(text)
    }
  }

  @Test func `A file that is not UTF-8 is refused`() {
    #expect(throws: MeshError.invalidFile(path: "mesh.yaml", line: 1, .notUTF8)) {
      try ComposeFile.parse([0x61, 0xFF], path: "mesh.yaml", environment: [:])
    }
  }

  @Test(arguments: ["/nonexistent/mesh.yaml", "/tmp"])
  func `A file that cannot be read is refused`(path: String) {
    let error = #expect(throws: MeshError.self) {
      try ComposeFile.load(path: path, environment: [:])
    }
    guard case .unreadableFile(path, _)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func `Any cut of a real file is read or refused, never more`() throws {
    let bytes = try BoundedFile.read(Self.shipped("local.yaml"), limit: 1 << 20)
    for end in stride(from: 0, to: bytes.count, by: 7) {
      _ = try? ComposeFile.parse(
        Array(bytes[..<end]), path: "cut", environment: ["CHIASM_MODEL": "/m"])
    }
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
