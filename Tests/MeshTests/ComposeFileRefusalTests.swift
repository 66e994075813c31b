import Testing

@testable import Mesh

/// What a mesh file is refused for, with its line.
extension ComposeFileTests {
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
}
