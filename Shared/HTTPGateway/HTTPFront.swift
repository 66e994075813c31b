import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import Sequencer
import ServiceLifecycle
import Text

/// The gateway for clients of the OpenAI API.
public struct HTTPFront: Service {
  private let gateway: GatewayService
  private let options: HTTPOptions
  private let logger: Logger
  private let listening: @Sendable (Int?) async -> Void

  /// - Parameter listening: told the port once requests are taken, nil on a Unix socket.
  public init(
    gateway: GatewayService, options: HTTPOptions, logger: Logger,
    listening: @escaping @Sendable (Int?) async -> Void = { _ in }
  ) {
    self.gateway = gateway
    self.options = options
    self.logger = logger
    self.listening = listening
  }

  /// Answers until the service group shuts down.
  public func run() async throws {
    let (address, logger, listening) = (options.address, logger, listening)
    if case .unix(let path) = address { StaleSocket.remove(path) }
    let application = Application(
      router: router,
      server: .http1(
        configuration: .init(
          additionalChannelHandlers: [Departure()],
          idleTimeout: .seconds(options.idleTime.components.seconds),
          httpDecoderConfiguration: .init(
            maxHeaderFieldSize: options.headerBytes, maxHeaderListSize: options.headerBytes,
            maxHeaderFieldCount: 100))),
      configuration: .init(
        address: address.bindAddress, serverName: nil, backlog: 1024,
        availableConnectionsDelegate: MaximumAvailableConnections(options.connections)),
      onServerRunning: { channel in
        logger.info("HTTP", metadata: ["at": "\(address)"])
        await listening(channel.localAddress?.port)
      },
      logger: logger)
    try await application.run()
  }

  /// All routes.
  var router: Router<GatewayContext> {
    let router = Router(context: GatewayContext.self)
    router.add(middleware: ErrorMiddleware())
    let (gateway, options) = (gateway, options)
    let api = router.group().add(middleware: KeyMiddleware(key: options.apiKey))
    let completions = ChatCompletions(gateway: gateway, options: options)
    api.post("/v1/chat/completions") { try await completions.handle($0, $1) }
    Tokenization(gateway: gateway, options: options).register(on: api)
    let health = HealthRoutes(gateway: gateway)
    health.register(on: router)
    api.get("/v1/models") { _, _ in JSON.response(ModelList(gateway)) }
    api.get("/v1/models/:name") { _, context in
      let name = context.parameters.get("name") ?? ""
      guard name == gateway.modelName else {
        throw APIError(
          .notFound, "the model \(name) does not exist; this gateway serves \(gateway.modelName)",
          parameter: "model", code: "model_not_found")
      }
      return JSON.response(ModelList.Model(gateway))
    }
    return router
  }
}

/// Lets in who has the key.
struct KeyMiddleware: RouterMiddleware {
  typealias Context = GatewayContext
  let key: String?

  func handle(
    _ request: Request, context: Context,
    next: (Request, Context) async throws -> Response
  ) async throws -> Response {
    if let key, !Self.isSame(request.headers[.authorization] ?? "", "Bearer \(key)") {
      throw APIError(
        .unauthorized, "the API key is missing or wrong; send it as Authorization: Bearer KEY",
        code: "invalid_api_key")
    }
    return try await next(request, context)
  }

  /// Looks at every byte, so that the time tells nothing of where they differ.
  private static func isSame(_ given: String, _ expected: String) -> Bool {
    let (given, expected) = (Array(given.utf8), Array(expected.utf8))
    var difference = UInt8(given.count == expected.count ? 0 : 1)
    for (index, byte) in given.enumerated() {
      difference |= byte ^ expected[index % expected.count]
    }
    return difference == 0
  }
}

struct ModelList: Encodable {
  struct Model: Encodable {
    let id: String
    let object = "model"
    let created: Int
    let ownedBy = "chiasm"
    let contextLength: Int

    enum CodingKeys: String, CodingKey {
      case id, object, created
      case ownedBy = "owned_by"
      case contextLength = "max_model_len"
    }

    init(_ gateway: GatewayService) {
      id = gateway.modelName
      created = gateway.started
      contextLength = gateway.builder.contextLength
    }
  }

  let object = "list"
  let data: [Model]

  enum CodingKeys: String, CodingKey { case object, data }

  init(_ gateway: GatewayService) { data = [Model(gateway)] }
}
