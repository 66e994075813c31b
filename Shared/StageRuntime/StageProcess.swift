import Logging
import ServiceLifecycle
import Transport

/// Runs a stage until it is told to stop.
public enum StageProcess {
  /// Serves `make`'s stage at the arguments' address. SIGTERM and SIGINT let calls that are
  /// under way finish for a few seconds.
  ///
  /// - Throws: what is wrong with the flags, the model folder or the address.
  public static func run(
    _ arguments: StageArguments, label: String,
    make: (Logger) throws -> any StageService
  ) async throws {
    var logger = Logger(label: label) { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = arguments.logLevel
    logger.info("loading weights", metadata: ["model": "\(arguments.model)"])
    let stage = try make(logger)
    let endpoint = try arguments.endpoint()
    var options = ServerOptions()
    options.didConnect = { stage.didConnect($0) }
    let server = try Server(endpoint, router: stage.router, options: options)
    logger.info("\(stage.summary)", metadata: ["listening": "\(endpoint)"])
    let group = ServiceGroup(
      configuration: .init(
        services: [
          .init(
            service: ServerService(server), successTerminationBehavior: .gracefullyShutdownGroup)
        ],
        gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
    try await group.run()
  }
}
