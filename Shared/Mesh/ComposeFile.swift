import Glibc
import Training

/// A mesh: its services, as a Compose file describes them (https://compose-spec.io).
///
/// `chiasm up` reads a subset of Compose, so that a container engine can run the same file:
///
/// - top level: `services`, `volumes`, `networks`, `x-*`;
/// - of a service, used here: `command`, `entrypoint`, `environment`, `healthcheck`,
///   `depends_on`, `restart`, `working_dir`, `stop_grace_period`;
/// - of a service, checked but left to container engines: `image`, `volumes`, `networks`,
///   `ports`, `init`, `deploy.resources`, `cpus`, `shm_size`;
/// - anchors, aliases, merge keys, and Compose's variables (`${NAME:-default}`).
///
/// Any other key is an error: a setting that one reader obeys and the other ignores is worse
/// than none.
public struct ComposeFile: Equatable, Sendable {
  /// Where the file was read, as given; a name in brackets for a mesh made in code.
  public var path: String
  /// In the order of the file.
  public var services: [Service]
  /// Names under `volumes:`.
  public var volumes: [String]
  /// Variables that were used without a default and are not set: they became empty.
  public var unsetVariables: [String]

  public init(
    path: String, services: [Service], volumes: [String] = [], unsetVariables: [String] = []
  ) {
    self.path = path
    self.services = services
    self.volumes = volumes
    self.unsetVariables = unsetVariables
  }

  public struct Service: Equatable, Sendable {
    public var name: String
    /// Line of the file, from 1; 0 for a service made in code.
    public var line: Int
    public var image: String?
    public var entrypoint: [String]
    public var command: [String]
    /// nil: passed on from the supervisor's environment.
    public var environment: [String: String?]
    /// nil: the supervisor asks the service's own health service, if it listens at an address.
    public var healthcheck: Healthcheck?
    public var dependencies: [Dependency]
    public var restart: RestartPolicy
    public var workingDirectory: String?
    /// Time between SIGTERM and SIGKILL.
    public var stopGracePeriod: Duration
    /// As written, for container engines.
    public var volumes: [String]
    public var cpus: Double?
    public var sharedMemoryBytes: UInt64?

    public init(
      name: String, line: Int = 0, image: String? = nil, entrypoint: [String] = [],
      command: [String], environment: [String: String?] = [:], healthcheck: Healthcheck? = nil,
      dependencies: [Dependency] = [], restart: RestartPolicy = .no,
      workingDirectory: String? = nil, stopGracePeriod: Duration = .seconds(10),
      volumes: [String] = [], cpus: Double? = nil, sharedMemoryBytes: UInt64? = nil
    ) {
      self.name = name
      self.line = line
      self.image = image
      self.entrypoint = entrypoint
      self.command = command
      self.environment = environment
      self.healthcheck = healthcheck
      self.dependencies = dependencies
      self.restart = restart
      self.workingDirectory = workingDirectory
      self.stopGracePeriod = stopGracePeriod
      self.volumes = volumes
      self.cpus = cpus
      self.sharedMemoryBytes = sharedMemoryBytes
    }
  }

  public struct Healthcheck: Equatable, Sendable {
    public enum Test: Equatable, Sendable {
      /// `NONE`, or `disable: true`: a service that runs counts as healthy.
      case none
      /// `CMD`: a program and its arguments.
      case command([String])
      /// `CMD-SHELL`, or a plain string: for `/bin/sh -c`.
      case shell(String)
    }

    public var test: Test
    /// Between two checks of a service that has started.
    public var interval: Duration
    /// For one check.
    public var timeout: Duration
    /// Failed checks in a row that make a service unhealthy.
    public var retries: Int
    /// Time in which failed checks do not count.
    public var startPeriod: Duration
    /// Between two checks until the service is healthy for the first time.
    public var startInterval: Duration

    public init(
      test: Test, interval: Duration = .seconds(30), timeout: Duration = .seconds(30),
      retries: Int = 3, startPeriod: Duration = .zero, startInterval: Duration = .milliseconds(200)
    ) {
      self.test = test
      self.interval = interval
      self.timeout = timeout
      self.retries = retries
      self.startPeriod = startPeriod
      self.startInterval = startInterval
    }
  }

  public struct Dependency: Equatable, Sendable {
    public enum Condition: String, Equatable, Sendable, CaseIterable {
      case started = "service_started"
      case healthy = "service_healthy"
    }

    public var service: String
    public var condition: Condition

    public init(_ service: String, _ condition: Condition = .healthy) {
      self.service = service
      self.condition = condition
    }
  }

  public enum RestartPolicy: Equatable, Sendable {
    case no
    /// After an exit code other than 0, or a signal; at most so many times in a row.
    case onFailure(limit: Int?)
    case always
    case unlessStopped
  }
}

extension ComposeFile {
  /// The environment to read a mesh file with when it is to run here: CHIASM_RUN is the mesh's
  /// run directory, and CHIASM_MODEL is made absolute, for the file may mount it as a volume.
  public static func variables(
    _ environment: [String: String], runDirectory: RunDirectory
  ) -> [String: String] {
    var result = environment
    result["CHIASM_RUN"] = runDirectory.path
    if let model = environment["CHIASM_MODEL"], !model.isEmpty, model.first != "/",
      let current = getcwd(nil, 0)
    {
      result["CHIASM_MODEL"] = String(cString: current) + "/" + model
      free(current)
    }
    return result
  }

  /// Reads a mesh file.
  ///
  /// - Parameter environment: values for `${NAME}`.
  /// - Throws: ``MeshError/unreadableFile(path:reason:)``,
  ///   ``MeshError/invalidFile(path:line:_:)``.
  public static func load(
    path: String, environment: [String: String]
  ) throws(MeshError) -> ComposeFile {
    let bytes = try BoundedFile.read(path, limit: YAMLTree.byteLimit)
    return try parse(bytes, path: path, environment: environment)
  }

  /// Reads a mesh file's bytes; `path` is for messages.
  public static func parse(
    _ bytes: [UInt8], path: String, environment: [String: String]
  ) throws(MeshError) -> ComposeFile {
    guard let tree = try YAMLTreeBuilder.build(bytes, path: path) else {
      throw .invalidFile(path: path, line: 1, .noServices)
    }
    var reader = ComposeReader(path: path, environment: environment)
    return try reader.file(tree)
  }

  /// The services so that each comes after those it depends on; otherwise in the file's order.
  ///
  /// - Throws: ``MeshError/invalidFile(path:line:_:)`` for a cycle or an unknown dependency.
  public func startOrder() throws(MeshError) -> [Service] {
    let byName = Dictionary(services.map { ($0.name, $0) }) { first, _ in first }
    var order: [Service] = []
    var done: Set<String> = []
    // An explicit stack: a file may chain more services than a thread's stack has room for.
    for root in services where !done.contains(root.name) {
      var stack = [(service: root, next: 0)]
      var entered: Set = [root.name]
      while let top = stack.last {
        if top.next == top.service.dependencies.count {
          done.insert(top.service.name)
          order.append(top.service)
          stack.removeLast()
          continue
        }
        stack[stack.count - 1].next += 1
        let name = top.service.dependencies[top.next].service
        if done.contains(name) { continue }
        guard let dependency = byName[name] else {
          let nearest = NearestName.of(name, in: byName.keys)
          throw .invalidFile(
            path: path, line: top.service.line, .unknownDependency(name, nearest: nearest))
        }
        guard entered.insert(name).inserted else {
          let cycle = stack.map(\.service.name).drop { $0 != name } + [name]
          throw .invalidFile(
            path: path, line: top.service.line, .dependencyCycle(Array(cycle)))
        }
        stack.append((dependency, 0))
      }
    }
    return order
  }
}

extension ComposeFile.Service {
  /// `entrypoint` and `command`: what is executed.
  public var arguments: [String] { entrypoint + command }

  /// Speaks over its standard input and output instead of a socket.
  ///
  /// Words inside an argument count: `sh -c "exec chiasm-language --stdio …"`.
  public var usesStandardStreams: Bool {
    arguments.contains { $0.split(whereSeparator: \.isWhitespace).contains("--stdio") }
  }

  /// What follows `--listen`, if anything.
  public var listenAddress: String? { value(of: "--listen") }

  /// What follows `--model`, if anything.
  public var model: String? { value(of: "--model") }

  private func value(of option: String) -> String? {
    let words = arguments
    for (index, word) in words.enumerated() {
      if word == option, index + 1 < words.count { return words[index + 1] }
      if word.hasPrefix(option + "=") { return String(word.dropFirst(option.count + 1)) }
    }
    return nil
  }
}
