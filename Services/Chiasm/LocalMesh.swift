import ArgumentParser
import Checkpoint
import Kernels
import Mesh
import Sequencer
import Transport

/// How a mesh for one call is cut.
struct MeshShape {
  var model: String
  var visionStages = 1
  var languageStages = 1
  /// Layers of the language stages; nil: as even as they can be.
  var languageSlices: [Range<Int>]?
  var device = "cpu"
  /// Of every process; nil: all cores.
  var threads: Int?
  var cacheTokens: Int?
  /// How the language stages' caches hold keys and values; nil: the stages' own default.
  var cacheType: CacheType?
}

extension CacheType: ExpressibleByArgument {}

/// A mesh of processes that lives for one call.
enum LocalMesh {
  /// Starts the mesh in a directory of its own, runs `body` with the gateway's address, and
  /// stops the mesh again, whatever came of it.
  ///
  /// - Throws: what is wrong with the model or the services, or what `body` throws.
  static func run<Result: Sendable>(
    _ shape: MeshShape, _ body: @escaping @Sendable (Endpoint) async throws -> Result
  ) async throws -> Result {
    try await run(shape) { gateway, _ in try await body(gateway) }
  }

  /// The same with the addresses of the stages, for those who do without the gateway.
  static func run<Result: Sendable>(
    _ shape: MeshShape,
    _ body: @escaping @Sendable (Endpoint, StageAddresses) async throws -> Result
  ) async throws -> Result {
    let configuration = try ModelConfiguration.load(folder: shape.model)
    var layout = Layout(
      model: shape.model, visionLayers: configuration.usedVisionLayers,
      languageLayers: configuration.language.layerCount, visionStages: shape.visionStages,
      languageStages: shape.languageStages)
    layout.languageSlices = shape.languageSlices
    layout.device = shape.device
    layout.threads = shape.threads
    if let tokens = shape.cacheTokens {
      layout.languageArguments = ["--cache-tokens", "\(tokens)"]
    }
    if let type = shape.cacheType { layout.languageArguments += ["--kv-cache", type.rawValue] }
    let path = try TemporaryFolder.make(prefix: "chiasm")
    defer { TemporaryFolder.remove(path) }
    let directory = RunDirectory(path: path)
    let options = Supervisor.Options(
      directory: path, environment: Environment.current, probe: .transport)
    let supervisor = try Supervisor(file: layout.file(in: directory), options: options)
    let gateway = try Endpoint(parsing: Layout.gatewayAddress(in: directory))
    func socket(_ name: String) -> Endpoint { .unix(path: directory.socketPath(name)) }
    let addresses = StageAddresses(
      vision: (0..<shape.visionStages).map { socket("vision-\($0)") },
      projector: socket("projector"),
      language: (0..<shape.languageStages).map { socket("language-\($0)") })
    return try await Interruption.cancelling {
      try await supervisor.run { _ in try await body(gateway, addresses) }
    }
  }
}
