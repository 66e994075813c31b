/// Turns the tree of a mesh file into services, refusing whatever it does not know.
struct ComposeReader {
  let path: String
  private var interpolation: Interpolation

  init(path: String, environment: [String: String]) {
    self.path = path
    interpolation = Interpolation(environment: environment)
  }

  private static let rootKeys: Set<String> = ["services", "volumes", "networks"]
  private static let serviceKeys: Set<String> = [
    "image", "command", "entrypoint", "environment", "healthcheck", "depends_on", "restart",
    "volumes", "networks", "ports", "init", "deploy", "cpus", "shm_size", "working_dir",
    "stop_grace_period",
  ]
  private static let healthKeys: Set<String> = [
    "test", "interval", "timeout", "retries", "start_period", "start_interval", "disable",
  ]

  mutating func file(_ root: YAMLTree) throws(MeshError) -> ComposeFile {
    let fields = try fields(of: try interpolated(root), "the file", known: Self.rootKeys)
    guard let services = fields["services"] else {
      throw error(root.line, .noServices)
    }
    let entries = try mapping(services.value, "services")
    guard !entries.isEmpty else { throw error(services.line, .noServices) }
    var file = ComposeFile(path: path, services: [])
    if let volumes = fields["volumes"] {
      file.volumes = try names(volumes.value, "volumes")
    }
    var networks = ["default"]
    if let declared = fields["networks"] {
      networks += try names(declared.value, "networks")
    }
    for entry in entries {
      file.services.append(
        try service(entry, volumes: file.volumes, networks: networks))
    }
    try checkDependencies(file, entries)
    file.unsetVariables = interpolation.unset.sorted()
    return file
  }

  // MARK: Services

  private func service(
    _ entry: YAMLTree.Entry, volumes: [String], networks: [String]
  ) throws(MeshError) -> ComposeFile.Service {
    let name = entry.key
    guard !name.isEmpty, name.count <= 63, name.unicodeScalars.allSatisfy(Self.isNamePart),
      name.first != ".", name.first != "-"
    else { throw error(entry.line, .invalidServiceName(name)) }
    let owner = "service \(name)"
    let fields = try fields(of: entry.value, owner, known: Self.serviceKeys)
    var service = ComposeFile.Service(name: name, line: entry.line, command: [])
    if let value = fields["entrypoint"]?.value {
      service.entrypoint = try words(value, "entrypoint")
    }
    if let value = fields["command"]?.value { service.command = try words(value, "command") }
    guard let program = service.arguments.first else {
      throw error(entry.line, .missingKey("command", of: owner))
    }
    guard !program.isEmpty else {
      throw error(
        entry.line, .invalidValue(key: "command", value: "", expected: "the name of a program"))
    }
    service.image = try fields["image"].map { (e) throws(MeshError) in try string(e.value, "image")
    }
    if let value = fields["environment"]?.value {
      service.environment = try environment(value)
    }
    if let value = fields["healthcheck"]?.value {
      service.healthcheck = try healthcheck(value, owner)
    }
    if let value = fields["depends_on"]?.value {
      service.dependencies = try dependencies(value, owner)
    }
    if let value = fields["restart"]?.value { service.restart = try restart(value) }
    if let value = fields["working_dir"]?.value {
      service.workingDirectory = try string(value, "working_dir")
    }
    if let value = fields["stop_grace_period"]?.value {
      service.stopGracePeriod = try duration(value, "stop_grace_period")
    }
    if let value = fields["volumes"]?.value {
      service.volumes = try mounts(value, declared: volumes)
    }
    if let value = fields["networks"]?.value {
      for item in try sequence(value, "networks") {
        let network = try string(item, "networks")
        guard networks.contains(network) else { throw error(item.line, .unknownNetwork(network)) }
      }
    }
    if let value = fields["ports"]?.value {
      for item in try sequence(value, "ports") { _ = try text(item, "ports") }
    }
    if let value = fields["init"]?.value { _ = try boolean(value, "init") }
    if let value = fields["deploy"]?.value { try checkDeploy(value, owner) }
    if let value = fields["cpus"]?.value { service.cpus = try positive(value, "cpus") }
    if let value = fields["shm_size"]?.value {
      service.sharedMemoryBytes = try bytes(value, "shm_size")
    }
    return service
  }

  private func checkDependencies(
    _ file: ComposeFile, _ entries: [YAMLTree.Entry]
  ) throws(MeshError) {
    _ = try file.startOrder()
    let byName = Dictionary(file.services.map { ($0.name, $0) }) { first, _ in first }
    for service in file.services {
      for dependency in service.dependencies where dependency.condition == .healthy {
        // Compose refuses to wait for the health of a service that has no check.
        if byName[dependency.service]?.healthcheck?.test == ComposeFile.Healthcheck.Test.none {
          throw error(
            service.line,
            .invalidValue(
              key: "depends_on.\(dependency.service).condition", value: "service_healthy",
              expected: "service_started, for \(dependency.service) has its healthcheck disabled"))
        }
      }
    }
  }

  private func environment(_ tree: YAMLTree) throws(MeshError) -> [String: String?] {
    var result: [String: String?] = [:]
    switch tree.content {
    case .mapping(let entries):
      for entry in entries {
        try checkVariable(entry.key, line: entry.line)
        let value: String? =
          entry.value.isNull ? nil : try text(entry.value, "environment.\(entry.key)")
        result[entry.key] = .some(value)
      }
    case .sequence(let items):
      for item in items {
        let words = try string(item, "environment").split(
          separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(words[0])
        try checkVariable(name, line: item.line)
        guard result[name] == nil else { throw error(item.line, .duplicateKey(name)) }
        result[name] = .some(words.count == 2 ? String(words[1]) : nil)
      }
    case .scalar:
      throw wrongType(tree, "environment", "a map or a list")
    }
    return result
  }

  private func checkVariable(_ name: String, line: Int) throws(MeshError) {
    guard !name.isEmpty, !name.contains("="), !name.contains("\0") else {
      throw error(
        line, .invalidValue(key: "environment", value: name, expected: "NAME or NAME=value"))
    }
  }

  private func healthcheck(
    _ tree: YAMLTree, _ owner: String
  ) throws(MeshError) -> ComposeFile.Healthcheck {
    let fields = try fields(of: tree, "healthcheck of \(owner)", known: Self.healthKeys)
    var check = ComposeFile.Healthcheck(test: .none)
    if let value = fields["test"]?.value {
      check.test = try healthTest(value)
    }
    let isDisabled =
      try fields["disable"].map { (e) throws(MeshError) in
        try boolean(e.value, "disable")
      } ?? false
    if isDisabled {
      check.test = .none
    } else if fields["test"] == nil {
      throw error(tree.line, .missingKey("test", of: "healthcheck of \(owner)"))
    }
    if let value = fields["interval"]?.value {
      check.interval = try duration(value, "interval", atLeast: .milliseconds(1))
    }
    if let value = fields["timeout"]?.value {
      check.timeout = try duration(value, "timeout", atLeast: .milliseconds(1))
    }
    if let value = fields["start_period"]?.value {
      check.startPeriod = try duration(value, "start_period")
    }
    if let value = fields["start_interval"]?.value {
      check.startInterval = try duration(value, "start_interval", atLeast: .milliseconds(1))
    }
    if let value = fields["retries"]?.value {
      let number = try text(value, "retries")
      guard let retries = Int(number), (1...1000).contains(retries) else {
        throw error(
          value.line,
          .invalidValue(key: "retries", value: number, expected: "a whole number from 1 to 1000"))
      }
      check.retries = retries
    }
    return check
  }

  private func healthTest(_ tree: YAMLTree) throws(MeshError) -> ComposeFile.Healthcheck.Test {
    guard case .sequence(let items) = tree.content else {
      return .shell(try string(tree, "test"))
    }
    var words: [String] = []
    for item in items { words.append(try string(item, "test")) }
    switch words.first {
    case "NONE" where words.count == 1: return .none
    case "CMD" where words.count > 1 && !words[1].isEmpty: return .command(Array(words.dropFirst()))
    case "CMD-SHELL" where words.count == 2: return .shell(words[1])
    default:
      throw error(
        tree.line,
        .invalidValue(
          key: "test", value: words.joined(separator: " "),
          expected: "[NONE], [CMD, program, arguments…] or [CMD-SHELL, line]"))
    }
  }

  private func dependencies(
    _ tree: YAMLTree, _ owner: String
  ) throws(MeshError) -> [ComposeFile.Dependency] {
    var result: [ComposeFile.Dependency] = []
    switch tree.content {
    case .sequence(let items):
      for item in items {
        let name = try string(item, "depends_on")
        guard !result.contains(where: { $0.service == name }) else {
          throw error(item.line, .duplicateKey(name))
        }
        result.append(.init(name, .started))
      }
    case .mapping(let entries):
      for entry in entries {
        let what = "depends_on.\(entry.key) of \(owner)"
        let fields = try fields(of: entry.value, what, known: ["condition"])
        guard let value = fields["condition"]?.value else {
          throw error(entry.line, .missingKey("condition", of: what))
        }
        let word = try string(value, "condition")
        guard let condition = ComposeFile.Dependency.Condition(rawValue: word) else {
          throw error(
            value.line,
            .invalidValue(
              key: "condition", value: word, expected: "service_started or service_healthy"))
        }
        result.append(.init(entry.key, condition))
      }
    case .scalar:
      throw wrongType(tree, "depends_on", "a list or a map")
    }
    return result
  }

  private func restart(_ tree: YAMLTree) throws(MeshError) -> ComposeFile.RestartPolicy {
    // Unquoted `no` is text in YAML 1.2, but `false` for older tools: take both.
    if case .scalar(let word, true) = tree.content, word == "false" { return .no }
    let word = try string(tree, "restart")
    switch word {
    case "no": return .no
    case "always": return .always
    case "unless-stopped": return .unlessStopped
    case "on-failure": return .onFailure(limit: nil)
    default:
      if word.hasPrefix("on-failure:"), let limit = Int(word.dropFirst(11)), limit >= 0 {
        return .onFailure(limit: limit)
      }
      throw error(
        tree.line,
        .invalidValue(
          key: "restart", value: word,
          expected: "no, always, unless-stopped, on-failure or on-failure:N"))
    }
  }

  private func mounts(_ tree: YAMLTree, declared: [String]) throws(MeshError) -> [String] {
    var result: [String] = []
    for item in try sequence(tree, "volumes") {
      let mount = try string(item, "volumes")
      let parts = mount.split(separator: ":", omittingEmptySubsequences: false)
      guard (2...3).contains(parts.count), !parts[0].isEmpty, parts[1].first == "/" else {
        throw error(
          item.line,
          .invalidValue(
            key: "volumes", value: mount, expected: "source:/absolute/target or …:ro"))
      }
      let isPath = "./~".contains(parts[0].first ?? "/")
      guard isPath || declared.contains(String(parts[0])) else {
        throw error(item.line, .unknownVolume(String(parts[0])))
      }
      result.append(mount)
    }
    return result
  }

  private func checkDeploy(_ tree: YAMLTree, _ owner: String) throws(MeshError) {
    let deploy = try fields(of: tree, "deploy of \(owner)", known: ["resources"])
    guard let resources = deploy["resources"]?.value else { return }
    let kinds = try fields(
      of: resources, "resources of \(owner)", known: ["limits", "reservations"])
    for (kind, entry) in kinds {
      let amounts = try fields(
        of: entry.value, "\(kind) of \(owner)", known: ["cpus", "memory", "pids", "devices"])
      if let value = amounts["cpus"]?.value { _ = try positive(value, "cpus") }
      if let value = amounts["memory"]?.value { _ = try bytes(value, "memory") }
      if let value = amounts["devices"]?.value { _ = try sequence(value, "devices") }
    }
  }

  // MARK: Variables

  /// The tree with all variables in its values replaced.
  private mutating func interpolated(_ tree: YAMLTree) throws(MeshError) -> YAMLTree {
    var result = tree
    switch tree.content {
    case .scalar(let text, let isPlain):
      do {
        let expanded = try interpolation.expand(text)
        // A value with a variable in it is text, whatever it expands to.
        result.content = .scalar(expanded, isPlain: isPlain && !text.contains("$"))
      } catch {
        throw .invalidFile(path: path, line: tree.line, error)
      }
    case .sequence(let items):
      var values: [YAMLTree] = []
      for item in items { values.append(try interpolated(item)) }
      result.content = .sequence(values)
    case .mapping(let entries):
      var values: [YAMLTree.Entry] = []
      for entry in entries {
        values.append(
          .init(key: entry.key, line: entry.line, value: try interpolated(entry.value)))
      }
      result.content = .mapping(values)
    }
    return result
  }
}
