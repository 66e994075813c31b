/// A mesh of one model on this machine, made in code: for a single call of `chiasm chat`,
/// `chiasm probe` or `chiasm train`.
public struct Layout: Equatable, Sendable {
  /// Folder of the model.
  public var model: String
  public var visionLayers: Int
  public var languageLayers: Int
  public var visionStages = 1
  public var languageStages = 1
  /// Slices of layers in each language process, dealt round robin; with more than one the last
  /// process hands on to the first.
  public var virtualStages = 1
  /// The layers of each slice, in the order of the data; nil: as even as they can be. Those of the
  /// language model are `languageStages` · `virtualStages` slices.
  public var visionSlices: [Range<Int>]?
  public var languageSlices: [Range<Int>]?
  /// Whether services are started again that end.
  public var restarts = false
  /// `--device` of every stage; nil: the stages' own default.
  public var device: String?
  /// `--threads` of every stage; nil: the stages' own default.
  public var threads: Int?
  /// `--cache-tokens` of every language stage, and so on: options passed on as they are.
  public var languageArguments: [String] = []
  public var gatewayArguments: [String] = []

  public init(
    model: String, visionLayers: Int, languageLayers: Int, visionStages: Int = 1,
    languageStages: Int = 1
  ) {
    self.model = model
    self.visionLayers = visionLayers
    self.languageLayers = languageLayers
    self.visionStages = visionStages
    self.languageStages = languageStages
  }

  /// Address of the gateway in the mesh that ``file(in:)`` describes.
  public static func gatewayAddress(in directory: RunDirectory) -> String {
    "unix:" + directory.socketPath("gateway")
  }

  /// Services `gateway`, `vision-I`, `projector` and `language-I`. Unless ``restarts`` says so,
  /// none of them is restarted: when one ends, so does the call.
  ///
  /// - Throws: ``MeshError/invalidLayout(part:stages:layers:)``.
  public func file(in directory: RunDirectory) throws(MeshError) -> ComposeFile {
    guard (1...max(1, visionLayers)).contains(visionStages) else {
      throw .invalidLayout(part: "vision encoder", stages: visionStages, layers: visionLayers)
    }
    guard (1...max(1, languageLayers)).contains(languageStages) else {
      throw .invalidLayout(part: "language model", stages: languageStages, layers: languageLayers)
    }
    let slices = languageStages * virtualStages
    guard virtualStages >= 1, slices <= max(1, languageLayers) else {
      throw .invalidLayout(part: "language model", stages: slices, layers: languageLayers)
    }
    let vision = (0..<visionStages).map { "vision-\($0)" }
    let language = (0..<languageStages).map { "language-\($0)" }
    var services: [ComposeFile.Service] = []
    for (index, name) in language.enumerated() {
      services.append(
        stage(
          name, "chiasm-language",
          next: language.dropFirst(index + 1).first ?? (virtualStages > 1 ? language[0] : nil),
          in: directory, languageSlice(index) + languageArguments))
    }
    services.append(stage("projector", "chiasm-projector", next: language[0], in: directory, []))
    for (index, name) in vision.enumerated() {
      services.append(
        stage(
          name, "chiasm-vision", next: vision.dropFirst(index + 1).first ?? "projector",
          in: directory, visionSlice(index)))
    }
    func addresses(_ names: [String]) -> String {
      names.map { "unix:" + directory.socketPath($0) }.joined(separator: ",")
    }
    services.append(
      ComposeFile.Service(
        name: "gateway",
        command: [
          "chiasm-gateway", "--model", model, "--listen", addresses(["gateway"]),
          "--vision", addresses(vision), "--projector", addresses(["projector"]),
          "--language", addresses(language),
        ] + gatewayArguments,
        dependencies: services.map { .init($0.name, .healthy) }))
    if restarts {
      for index in services.indices { services[index].restart = .onFailure(limit: nil) }
    }
    return ComposeFile(path: "(generated mesh)", services: services)
  }

  private func visionSlice(_ index: Int) -> [String] {
    guard let visionSlices else { return ["--stage", "\(index)/\(visionStages)"] }
    return ["--layers", Layout.text(visionSlices[index])]
  }

  private func languageSlice(_ index: Int) -> [String] {
    if languageSlices == nil, virtualStages == 1 {
      return ["--stage", "\(index)/\(languageStages)"]
    }
    let slices = languageSlices ?? Layout.even(languageLayers, languageStages * virtualStages)
    let own = stride(from: index, to: slices.count, by: languageStages).map { slices[$0] }
    return ["--layers", own.map(Layout.text).joined(separator: ",")]
  }

  private static func even(_ layers: Int, _ count: Int) -> [Range<Int>] {
    (0..<count).map { layers * $0 / count..<layers * ($0 + 1) / count }
  }

  private static func text(_ range: Range<Int>) -> String {
    "\(range.lowerBound)-\(range.upperBound - 1)"
  }

  private func stage(
    _ name: String, _ program: String, next: String?, in directory: RunDirectory,
    _ arguments: [String]
  ) -> ComposeFile.Service {
    var command = [program, "--model", model] + arguments
    command += ["--listen", "unix:" + directory.socketPath(name)]
    if let next { command += ["--next", "unix:" + directory.socketPath(next)] }
    if let device { command += ["--device", device] }
    if let threads { command += ["--threads", "\(threads)"] }
    return ComposeFile.Service(name: name, command: command)
  }
}
