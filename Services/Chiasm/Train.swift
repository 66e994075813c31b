import ArgumentParser
import Checkpoint
import Logging
import Mesh
import Sequencer
import Training
import Transport
import UnixSignals

/// `chiasm train`: fine-tunes a model, in a mesh or in this process.
struct Train: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Fine-tune a model over a mesh of processes.",
    discussion: """
      Uses the running mesh, unless one is described by --vision-stages, --language-stages or -f: \
      then it starts that, in the run directory, where `chiasm chat` finds it and answers with \
      the weights of the last finished step. Services that end are started again, and the run \
      goes on from the last checkpoint.

      Ctrl-C ends the run after the step under way, with a checkpoint; a second one at once.
      """)

  @OptionGroup(title: "Settings") var settings: TrainSettings

  @Flag(help: "Train in this process instead of in a mesh.")
  var inProcess = false

  @Option(help: ArgumentHelp("Processes the vision encoder is split into.", valueName: "n"))
  var visionStages: Int?

  @Option(help: ArgumentHelp("Processes the language model is split into.", valueName: "n"))
  var languageStages: Int?

  @Option(
    name: [.customShort("f"), .long],
    help: ArgumentHelp("Mesh file in Compose format to start.", valueName: "file"))
  var file: String?

  @Option(help: ArgumentHelp("Gateway of a mesh that runs.", valueName: "address"))
  var connect: String?

  @Option(
    help: ArgumentHelp(
      "Layers of the stages: even (default), auto (by measured costs), or the numbers of layers of "
        + "all vision and language stages with commas.", valueName: "how"))
  var balance: String?

  @Option(help: ArgumentHelp("cpu (default), or cuda:N.", valueName: "device"))
  var device: String?

  @Option(help: ArgumentHelp("Threads of every process (default: all cores).", valueName: "n"))
  var threads: Int?

  @Option(help: ArgumentHelp("Positions of the stages' caches, for chats.", valueName: "n"))
  var cacheTokens: Int?

  @OptionGroup var location: MeshLocation

  func validate() throws {
    let places = [inProcess, file != nil, connect != nil].count { $0 }
    if places > 1 { throw ValidationError("give one of --in-process, -f and --connect") }
    if places == 1, visionStages != nil || languageStages != nil {
      throw ValidationError(
        "--vision-stages and --language-stages describe a mesh of their own; leave --in-process, "
          + "-f or --connect out")
    }
    for (name, value) in [
      ("--vision-stages", visionStages), ("--language-stages", languageStages),
      ("--threads", threads), ("--cache-tokens", cacheTokens),
    ] {
      if let value, value < 1 { throw ValidationError("\(name) must be at least 1") }
    }
    if inProcess {
      try refuse(["--balance", "--cache-tokens"], because: "--in-process has no stages")
    }
    if let file {
      try refuse(Train.layoutFlags, because: "\(file) says how its services are started")
    }
    if connect != nil { try refuse(Train.layoutFlags, because: "the mesh runs already") }
  }

  private static let layoutFlags = ["--balance", "--device", "--threads", "--cache-tokens"]

  /// - Throws: `ValidationError` when one of the flags was given, which would do nothing.
  private func refuse(_ names: [String], because reason: String) throws {
    let given: [(String, Bool)] = [
      ("--balance", balance != nil), ("--device", device != nil), ("--threads", threads != nil),
      ("--cache-tokens", cacheTokens != nil),
    ]
    let found = given.filter { $0.1 && names.contains($0.0) }.map(\.0)
    guard found.isEmpty else {
      throw ValidationError("\(reason); leave \(found.joined(separator: " and ")) out")
    }
  }

  func run() async throws {
    do {
      try await train()
    } catch let error as ValidationError {
      Terminal.say("Error: \(error.message)\nUsage: chiasm train [<options>]")
      Terminal.say("  See 'chiasm train --help' for more information.")
      throw ExitCode.validationFailure
    } catch let error as RPCError {
      throw TrainFailure(error)
    }
  }

  private func train() async throws {
    let configuration = try settings.configuration()
    let problems = configuration.problems()
    guard problems.isEmpty else {
      throw ValidationError(problems.map { "\($0)" }.joined(separator: "\n"))
    }
    let screen = TrainScreen()
    if inProcess { return try await trainHere(configuration, screen) }
    if let connect {
      return try await train(configuration, at: Endpoint(parsing: connect), screen)
    }
    let describesMesh = visionStages != nil || languageStages != nil || file != nil
    if !describesMesh, (try? MeshState.running(in: location.runDirectory)) != nil {
      let path = location.runDirectory.path
      try refuse(Train.layoutFlags, because: "the mesh in \(path) runs already")
      screen.put("training on the mesh in \(path)")
      let gateway = try Endpoint(parsing: Layout.gatewayAddress(in: location.runDirectory))
      return try await train(configuration, at: gateway, screen)
    }
    try await trainOnOwnMesh(configuration, screen)
  }

  // MARK: In this process

  private func trainHere(
    _ configuration: TrainingConfiguration, _ screen: TrainScreen
  ) async throws {
    let interest = RunInterest(screen)
    try await Interruption.ending(interest) {
      let steps = try await DataSteps.checked(configuration) { screen.show($0) }
      let stages = InProcessStages(
        model: configuration.model, device: device ?? "cpu", threads: threads ?? Machine.cores)
      let run = try TrainingRun(
        configuration, stages: stages, source: steps, logger: Logger(label: "train")
      ) { interest.show($0) }
      interest.canEnd { run.endEarly() }
      _ = try await run.run()
    }
    try interest.requireSaved()
  }

  // MARK: In a mesh

  private func trainOnOwnMesh(
    _ configuration: TrainingConfiguration, _ screen: TrainScreen
  ) async throws {
    let directory = location.runDirectory
    var environment = Environment.current
    environment["CHIASM_MODEL"] = configuration.model
    environment = ComposeFile.variables(environment, runDirectory: directory)
    var compose: ComposeFile
    if let file {
      compose = try ComposeFile.load(path: file, environment: environment)
    } else {
      compose = try layout(configuration, screen).file(in: directory)
    }
    for index in compose.services.indices where compose.services[index].restart == .no {
      compose.services[index].restart = .onFailure(limit: nil)
    }
    var options = Supervisor.Options(
      directory: directory.path, environment: environment, probe: .transport)
    options.onLine = { line in
      if line.isError, line.text.contains(" error ") || line.text.contains(" critical ") {
        screen.put("\(line.service)  \(line.text)")
      }
    }
    let supervisor = try Supervisor(file: compose, options: options)
    let gateway = try Endpoint(parsing: Layout.gatewayAddress(in: directory))
    screen.put("starting a mesh of \(compose.services.count) processes")
    let interest = RunInterest(screen)
    try await Interruption.ending(interest) {
      try await supervisor.run { _ in
        try await TrainOverMesh(gateway: gateway, interest: interest, ownsMesh: true)
          .run(configuration)
      }
    }
    try interest.requireSaved()
  }

  private func layout(
    _ configuration: TrainingConfiguration, _ screen: TrainScreen
  ) throws -> Layout {
    let model = try ModelConfiguration.load(folder: configuration.model)
    try model.requireFloats(folder: configuration.model, purpose: "cannot be trained")
    var layout = Layout(
      model: configuration.model, visionLayers: model.usedVisionLayers,
      languageLayers: model.language.layerCount, visionStages: visionStages ?? 1,
      languageStages: languageStages ?? 1)
    layout.virtualStages = configuration.virtualStages
    layout.restarts = true
    layout.device = device ?? "cpu"
    layout.threads = threads
    layout.languageArguments = cacheTokens.map { ["--cache-tokens", "\($0)"] } ?? []
    if configuration.schedule == .interleaved, layout.languageStages < 2 {
      throw ValidationError(
        "schedule interleaved needs at least 2 language stages; give --language-stages")
    }
    try TrainBalance(balance ?? "even").apply(to: &layout, model, configuration) { screen.put($0) }
    return layout
  }

  private func train(
    _ configuration: TrainingConfiguration, at gateway: Endpoint, _ screen: TrainScreen
  ) async throws {
    let interest = RunInterest(screen)
    try await Interruption.ending(interest) {
      try await TrainOverMesh(gateway: gateway, interest: interest, ownsMesh: false)
        .run(configuration)
    }
    try interest.requireSaved()
  }
}

/// Why a run over a mesh failed, in words for people.
struct TrainFailure: Error, CustomStringConvertible {
  let description: String

  init(_ error: RPCError) {
    switch error.code {
    case .internal, .unknown, .unimplemented: description = "\(error)"
    default: description = error.message
    }
  }
}
