import ArgumentParser
import HTTPGateway
import Logging
import Sequencer
import ServiceLifecycle
import Transport

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

@main
struct Gateway: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chiasm-gateway",
    abstract: "Answers chat requests by sequencing them over the stages of a mesh.",
    discussion: """
      With --stdio the first byte decides: { begins JSON, one request a line, answered by one \
      object a line; anything else is the framed protocol.
      """)

  @Option(help: ArgumentHelp("Model folder in the release format.", valueName: "folder"))
  var model: String

  @Option(
    help: ArgumentHelp("Addresses of the vision stages in order.", valueName: "address,…"))
  var vision: String

  @Option(help: ArgumentHelp("Address of the projector.", valueName: "address"))
  var projector: String

  @Option(
    help: ArgumentHelp("Addresses of the language stages in order.", valueName: "address,…"))
  var language: String

  @Option(help: ArgumentHelp("Where to listen: unix:PATH or tcp:HOST:PORT.", valueName: "address"))
  var listen: String?

  @Flag(help: "Speak over standard input and output instead.")
  var stdio = false

  @Option(
    help: ArgumentHelp(
      "Where to serve the OpenAI API: HOST:PORT or unix:PATH.", valueName: "address"))
  var http: String?

  @Option(
    help: ArgumentHelp(
      "What HTTP clients must give as their API key (default: $CHIASM_API_KEY, which ps does not "
        + "show).", valueName: "key"))
  var apiKey: String?

  @Flag(help: "Let everybody in who reaches --http, also from other machines.")
  var insecure = false

  @Option(
    help: ArgumentHelp("Folder whose pictures file: addresses may name.", valueName: "folder"))
  var allowedLocalMediaPath: String?

  @Option(help: ArgumentHelp("Answers being computed at once.", valueName: "n"))
  var maxRunning = GatewayLimits().running

  @Option(help: ArgumentHelp("Requests that may wait.", valueName: "n"))
  var maxWaiting = GatewayLimits().waiting

  @Option(help: ArgumentHelp("Tokens of one pass through the language stages.", valueName: "n"))
  var stepTokens = GatewayLimits().stepTokens

  @Option(help: ArgumentHelp("trace, debug, info, warning, error.", valueName: "level"))
  var logLevel: Logger.Level = .info

  func validate() throws {
    if (listen != nil || http != nil) == stdio {
      throw ValidationError("give --listen ADDRESS, --http ADDRESS or both, or else --stdio")
    }
    if let http {
      let address = try HTTPOptions.Address(parsing: http)
      guard address.isLocal || key != nil || insecure else {
        throw ValidationError(
          "\(http) can be reached from other machines: set CHIASM_API_KEY, or give --insecure to "
            + "let everybody in")
      }
    }
    guard maxWaiting > 0 else { throw ValidationError("--max-waiting must be positive") }
    // What a stage takes in one step.
    for (name, value) in [("--max-running", maxRunning), ("--step-tokens", stepTokens)]
    where !(1...1024).contains(value) {
      throw ValidationError("\(name) must be between 1 and 1024")
    }
  }

  /// The key that clients need; an empty one is none.
  private var key: String? {
    let key = apiKey ?? ProcessInfo.processInfo.environment["CHIASM_API_KEY"] ?? ""
    return key.isEmpty ? nil : key
  }

  func run() async throws {
    var logger = Logger(label: "gateway") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = logLevel
    var limits = GatewayLimits()
    limits.running = maxRunning
    limits.waiting = maxWaiting
    limits.stepTokens = stepTokens
    let gateway = try GatewayService(
      modelFolder: model,
      addresses: StageAddresses(
        vision: Endpoint.list(vision), projector: Endpoint.list(projector)[0],
        language: Endpoint.list(language)),
      limits: limits, logger: logger)
    var fronts: [any Service] = []
    if let listen {
      fronts.append(ServerService(try Server(Endpoint(parsing: listen), router: gateway.router)))
    }
    if let http {
      var options = HTTPOptions(address: try HTTPOptions.Address(parsing: http))
      options.apiKey = key
      options.mediaFolder = allowedLocalMediaPath
      fronts.append(HTTPFront(gateway: gateway, options: options, logger: logger))
    }
    if fronts.isEmpty { fronts.append(StandardFront(gateway: gateway)) }
    let group = ServiceGroup(
      configuration: .init(
        services: [.init(service: Sequencing(gateway: gateway))]
          + fronts.map {
            .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup)
          }
          // The first to be shut down: it needs all others.
          + [.init(service: TrainingEnding(gateway: gateway))],
        gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
    try await group.run()
  }
}

extension Endpoint {
  /// Reads addresses with commas between them.
  static func list(_ text: String) throws -> [Endpoint] {
    try text.split(separator: ",", omittingEmptySubsequences: false).map {
      let endpoint = try Endpoint(parsing: String($0))
      if case .exec = endpoint {
        throw ValidationError(
          "\(endpoint) would start a stage that no other stage can reach; make it a service of the "
            + "mesh file with that command and --stdio, and give its socket")
      }
      return endpoint
    }
  }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// Keeps the stages attached for as long as there is a front to ask.
private struct Sequencing: Service {
  let gateway: GatewayService

  func run() async {
    await cancelWhenGracefulShutdown { await gateway.run() }
  }
}

/// Ends training in time for a checkpoint.
private struct TrainingEnding: Service {
  let gateway: GatewayService
  /// Less than supervisors wait before they kill, with a part of it for calls under way.
  private let grace = Duration.seconds(7)

  func run() async {
    guard (try? await gracefulShutdown()) != nil else { return }
    await gateway.endTraining(within: grace)
  }
}

/// The gateway on standard input and output, framed or as JSON lines.
private struct StandardFront: Service {
  let gateway: GatewayService

  func run() async throws {
    let first = await cancelWhenGracefulShutdown { try? await StandardInput.peek() }
    guard let first else { return }
    if first == UInt8(ascii: "{") {
      await cancelWhenGracefulShutdown { try? await LineMode(gateway: gateway).run() }
    } else {
      try await ServerService(Server(.stdio, router: gateway.router)).run()
    }
  }
}
