import ArgumentParser
import Logging
import Sequencer
import ServiceLifecycle
import Transport

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

  @Option(help: ArgumentHelp("Answers being computed at once.", valueName: "n"))
  var maxRunning = GatewayLimits().running

  @Option(help: ArgumentHelp("Requests that may wait.", valueName: "n"))
  var maxWaiting = GatewayLimits().waiting

  @Option(help: ArgumentHelp("Tokens of one pass through the language stages.", valueName: "n"))
  var stepTokens = GatewayLimits().stepTokens

  @Option(help: ArgumentHelp("trace, debug, info, warning, error.", valueName: "level"))
  var logLevel: Logger.Level = .info

  func validate() throws {
    if (listen != nil) == stdio {
      throw ValidationError(
        "give one of --listen unix:PATH, --listen tcp:HOST:PORT and --stdio")
    }
    guard maxWaiting > 0 else { throw ValidationError("--max-waiting must be positive") }
    // What a stage takes in one step.
    for (name, value) in [("--max-running", maxRunning), ("--step-tokens", stepTokens)]
    where !(1...1024).contains(value) {
      throw ValidationError("\(name) must be between 1 and 1024")
    }
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
    let front: any Service =
      if let listen {
        ServerService(try Server(Endpoint(parsing: listen), router: gateway.router))
      } else {
        StandardFront(gateway: gateway)
      }
    let group = ServiceGroup(
      configuration: .init(
        services: [
          .init(service: Sequencing(gateway: gateway)),
          .init(service: front, successTerminationBehavior: .gracefullyShutdownGroup),
          // The first to be shut down: it needs all others.
          .init(service: TrainingEnding(gateway: gateway)),
        ],
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
