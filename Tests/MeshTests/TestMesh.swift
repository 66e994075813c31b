import Logging
import Messages
import Sequencer
import StageRuntime
import Synchronization
import Testing
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What a mesh in the test process looks like.
struct MeshPlan: Sendable {
  enum Carrier: String, Sendable {
    case unix, tcp
  }

  var model = GoldenModel.tiny
  /// Layers of each stage.
  var vision: [Range<Int>]
  var language: [Range<Int>]
  var carrier = Carrier.unix
  var device = "cpu"
  var threads = 1
  var cacheTokens = 4096
  var pictureBytes = 1 << 30
  var limits = GatewayLimits()
  /// Models of single services, by name, that are not the mesh's.
  var models: [String: GoldenModel] = [:]
  /// Stages by name that are child processes, reached through standard input and output.
  var children: Set<String> = []
  /// Whether children hand their output back over the streams they are spoken to on.
  var callsBack = false
  /// What single stages, by name, answer instead of the real ones.
  var stands: [String: Router] = [:]
  /// Stages, by name, that a test starts itself.
  var absent: Set<String> = []
  /// Whether to begin once all stages are attached.
  var waitsForStages = true

  init(_ model: GoldenModel = .tiny, visionStages: Int = 1, languageStages: Int = 1) {
    self.model = model
    vision = MeshPlan.split(model.visionLayers, visionStages)
    language = MeshPlan.split(model.languageLayers, languageStages)
  }

  private static func split(_ layers: Int, _ stages: Int) -> [Range<Int>] {
    (0..<stages).map { layers * $0 / stages..<layers * ($0 + 1) / stages }
  }
}

/// Services of a mesh, connected as their executables are, within the test process.
final class TestMesh: Sendable {
  let plan: MeshPlan
  let directory: SocketDirectory
  /// By name: vision-0, projector, language-0 and so on.
  let stages: [String: StageHost]
  let addresses: StageAddresses
  let gateway: GatewayHost
  let client: ChatClient
  /// To the gateway.
  let channel: Channel

  init(_ plan: MeshPlan) async throws {
    let directory = try SocketDirectory()
    self.plan = plan
    self.directory = directory
    var stages: [String: StageHost] = [:]

    func host(
      _ name: String, _ layers: Range<Int>, next: Endpoint?,
      make: @escaping @Sendable (StageOptions) throws -> any StageService
    ) async throws -> Endpoint {
      let model = plan.models[name] ?? plan.model
      let options = StageOptions(
        model: model.folder, slice: .layers(layers), next: next.map { .endpoint($0) },
        device: plan.device, threads: plan.threads, cacheTokens: plan.cacheTokens,
        pictureBytes: plan.pictureBytes)
      let host = StageHost(
        plan.carrier == .unix ? directory.socket(name) : .loopback, stand: plan.stands[name]
      ) {
        if plan.children.contains(name) {
          var channel = Channel.Options()
          var address = next?.description
          if plan.callsBack, let next {
            address = "peer:following"
            channel.router = Bridge.router(byAuthority: ["following": Channel(next)])
          }
          let command = Executables.stage(name, layers, next: address, options)
          return Bridge.router(to: Channel(.exec(command: command), options: channel))
        }
        return try make(options).router
      }
      if !plan.absent.contains(name) { try await host.start() }
      stages[name] = host
      return await host.endpoint
    }

    // From the last to the first, since each is told where the next one is.
    var language: [Endpoint] = []
    for (index, layers) in plan.language.enumerated().reversed() {
      let isLast =
        layers.upperBound == (plan.models["language-\(index)"] ?? plan.model).languageLayers
      let next = isLast ? nil : language.first ?? directory.socket("nowhere")
      language.insert(
        try await host("language-\(index)", layers, next: next) {
          try LanguageService($0, logger: .quiet)
        }, at: 0)
    }
    let projector = try await host("projector", 0..<1, next: language[0]) {
      try ProjectorService($0, logger: .quiet)
    }
    var vision: [Endpoint] = []
    for (index, layers) in plan.vision.enumerated().reversed() {
      vision.insert(
        try await host("vision-\(index)", layers, next: vision.first ?? projector) {
          try VisionService($0, logger: .quiet)
        }, at: 0)
    }
    self.stages = stages
    addresses = StageAddresses(vision: vision, projector: projector, language: language)
    gateway = try GatewayHost(
      plan.carrier == .unix ? directory.socket("gateway") : .loopback,
      model: plan.models["gateway"] ?? plan.model, addresses: addresses, limits: plan.limits)
    client = ChatClient(gateway.endpoint)
    channel = Channel(gateway.endpoint)
    if plan.waitsForStages { try await gateway.service.ready(within: .seconds(30)) }
  }

  func close() async {
    client.close()
    channel.close()
    await gateway.stop()
    for stage in stages.values { await stage.stop() }
    directory.remove()
  }

  func stage(_ name: String) throws -> StageHost { try #require(stages[name]) }

  func describe(_ stage: String) async throws -> StageDescription {
    try await call(stage, Methods.Stage.describe, DescribeRequest()).message
  }

  /// Calls a stage directly.
  func call<Request, Response>(
    _ stage: String, _ method: Method<Request, Response>, _ request: Request,
    tensors: [Attachment] = []
  ) async throws -> Payload<Response> {
    let channel = Channel(await (try self.stage(stage)).endpoint)
    defer { channel.close() }
    return try await channel.call(
      method, request, tensors: tensors, deadline: .after(.seconds(30)))
  }

  /// Waits until no language stage holds anything of any sequence.
  func cachesAreEmpty() async throws {
    for name in stages.keys where name.hasPrefix("language") {
      try await eventually("\(name) holds no sequence") {
        let description = try await self.describe(name)
        return description.cacheTokensUsed == 0 && description.sequences == 0
      }
    }
  }

  /// Waits until the gateway sees a stage up or down.
  func sees(_ stage: String, ready: Bool) async throws {
    try await eventually("the gateway sees \(stage) \(ready ? "up" : "down")") {
      try await self.client.describe().stages.first { $0.name == stage }?.ready == ready
    }
  }
}

/// Runs `body` with a mesh that ends with it.
func withMesh<Result>(
  _ plan: MeshPlan = MeshPlan(), _ body: (TestMesh) async throws -> Result
) async throws -> Result {
  let mesh = try await TestMesh(plan)
  do {
    let result = try await body(mesh)
    await mesh.close()
    return result
  } catch {
    await mesh.close()
    throw error
  }
}

/// A stage at an address, which can be stopped and started again without what it remembered.
actor StageHost {
  /// Where the stage listens; over TCP known once it has been started.
  private(set) var endpoint: Endpoint
  private let make: @Sendable () throws -> Router
  /// What it answers instead of what `make` says.
  private var stand: Router?
  private var server: Server?
  private var running: Task<Void, any Error>?

  init(
    _ endpoint: Endpoint, stand: Router?, make: @escaping @Sendable () throws -> Router
  ) {
    self.endpoint = endpoint
    self.stand = stand
    self.make = make
  }

  /// From the next start on the stage answers as it should.
  func dropStand() { stand = nil }

  func start() throws {
    let server = try Server(endpoint, router: stand ?? make())
    endpoint = server.endpoint
    self.server = server
    running = Task { try await server.run() }
  }

  /// Ends all calls at once, as a killed process does.
  func stop() async {
    await server?.shutDown(grace: .zero)
    _ = await running?.result
    server = nil
    running = nil
  }
}

/// A gateway at an address.
final class GatewayHost: Sendable {
  let service: GatewayService
  let endpoint: Endpoint
  private let server: Server
  private let tasks: [Task<Void, any Error>]

  init(
    _ endpoint: Endpoint, model: GoldenModel, addresses: StageAddresses, limits: GatewayLimits
  ) throws {
    let service = try GatewayService(
      modelFolder: model.folder, addresses: addresses, limits: limits, logger: .quiet)
    let server = try Server(endpoint, router: service.router)
    self.service = service
    self.server = server
    self.endpoint = server.endpoint
    tasks = [Task { await service.run() }, Task { try await server.run() }]
  }

  /// Ends all calls at once, as a killed process does.
  func stop() async {
    await server.shutDown(grace: .zero)
    for task in tasks {
      task.cancel()
      _ = await task.result
    }
  }
}

extension Endpoint {
  /// Any free port.
  static let loopback = Endpoint.tcp(host: "127.0.0.1", port: 0)
}

extension Logger {
  static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
}

/// A directory for sockets, of this user alone.
struct SocketDirectory: Sendable {
  let path: String

  init() throws {
    var template = Array("/tmp/chiasm-XXXXXX".utf8CString)
    path = try template.withUnsafeMutableBufferPointer { buffer in
      String(cString: try #require(buffer.baseAddress.flatMap { mkdtemp($0) }))
    }
  }

  func socket(_ name: String) -> Endpoint { .unix(path: "\(path)/\(name).sock") }

  func remove() { system("rm -rf '\(path)'") }
}
