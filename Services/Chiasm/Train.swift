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
      "Layers of the stages: even, auto (by measured costs), or the numbers of layers of all "
        + "vision and language stages with commas.", valueName: "how"))
  var balance = "even"

  @Option(help: ArgumentHelp("cpu, or cuda:N.", valueName: "device"))
  var device = "cpu"

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
  }

  func run() async throws {
    let configuration = try settings.configuration()
    let problems = configuration.problems()
    guard problems.isEmpty else {
      throw ValidationError(problems.map { "\($0)" }.joined(separator: "\n"))
    }
    let screen = TrainScreen()
    if inProcess { return try await trainHere(configuration, screen) }
    if let connect {
      return try await train(configuration, at: Endpoint(parsing: connect), screen, ownsMesh: false)
    }
    let describesMesh = visionStages != nil || languageStages != nil || file != nil
    if !describesMesh, (try? MeshState.running(in: location.runDirectory)) != nil {
      screen.put("training on the mesh in \(location.runDirectory.path)")
      let gateway = try Endpoint(parsing: Layout.gatewayAddress(in: location.runDirectory))
      return try await train(configuration, at: gateway, screen, ownsMesh: false)
    }
    try await trainOnOwnMesh(configuration, screen)
  }

  // MARK: In this process

  private func trainHere(
    _ configuration: TrainingConfiguration, _ screen: TrainScreen
  ) async throws {
    let steps = try await DataSteps.checked(configuration) { screen.show($0) }
    let stages = InProcessStages(
      model: configuration.model, device: device, threads: threads ?? Machine.cores)
    let run = try TrainingRun(
      configuration, stages: stages, source: steps, logger: Logger(label: "train")
    ) { screen.show($0) }
    try await Interruption.ending {
      screen.put("ending after this step; Ctrl-C again ends at once")
      run.endEarly()
    } body: {
      _ = try await run.run()
    }
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
    try await Interruption.ending {
      screen.put("ending after this step; Ctrl-C again ends at once")
      await TrainOverMesh.stop(gateway)
    } body: {
      try await supervisor.run { _ in
        try await TrainOverMesh(gateway: gateway, screen: screen, ownsMesh: true)
          .run(configuration)
      }
    }
  }

  private func layout(
    _ configuration: TrainingConfiguration, _ screen: TrainScreen
  ) throws -> Layout {
    let model = try ModelConfiguration.load(folder: configuration.model)
    var layout = Layout(
      model: configuration.model, visionLayers: model.usedVisionLayers,
      languageLayers: model.language.layerCount, visionStages: visionStages ?? 1,
      languageStages: languageStages ?? 1)
    layout.virtualStages = configuration.virtualStages
    layout.restarts = true
    layout.device = device
    layout.threads = threads
    layout.languageArguments = cacheTokens.map { ["--cache-tokens", "\($0)"] } ?? []
    try TrainBalance(balance).apply(to: &layout, model, configuration) { screen.put($0) }
    return layout
  }

  private func train(
    _ configuration: TrainingConfiguration, at gateway: Endpoint, _ screen: TrainScreen,
    ownsMesh: Bool
  ) async throws {
    try await Interruption.ending {
      screen.put("ending after this step; Ctrl-C again ends at once")
      await TrainOverMesh.stop(gateway)
    } body: {
      try await TrainOverMesh(gateway: gateway, screen: screen, ownsMesh: ownsMesh)
        .run(configuration)
    }
  }
}

/// A run that a gateway makes, taken up again when the gateway itself was lost.
struct TrainOverMesh: Sendable {
  let gateway: Endpoint
  let screen: TrainScreen
  let ownsMesh: Bool

  private static let attempts = 5

  func run(_ configuration: TrainingConfiguration) async throws {
    var configuration = configuration
    var vain = 0
    var done = -1
    /// The last step of this call.
    var end: Int?
    while true {
      let client = TrainingClient(gateway)
      defer { client.close() }
      var hasEnded = false
      var reached = done
      do {
        try await client.train(configuration) { event in
          if case .step(let log, _, _) = event { reached = max(reached, log.step) }
          if case .ended = event { hasEnded = true }
          if case .started(let start) = event, end == nil {
            end = configuration.stopAfter.map { start.step + $0 }
          }
          screen.show(event)
        }
        if hasEnded { return }
        throw RPCError(.unavailable, "the gateway ended the run's stream early")
      } catch let error as RPCError {
        vain = reached > done ? 0 : vain + 1
        done = reached
        guard ownsMesh, !hasEnded, error.code == .unavailable, vain < TrainOverMesh.attempts,
          !Task.isCancelled
        else { throw error }
        screen.put("the gateway was lost: \(error.message)")
        try await wait()
        // What it had done is on disk.
        configuration.resume = true
        if let end {
          let saved = CheckpointFolder.latestValid(in: configuration.output).found?.step ?? 0
          configuration.stopAfter = max(1, end - saved)
        }
        screen.put("the gateway is back")
      }
    }
  }

  /// Waits until the gateway answers again.
  private func wait() async throws {
    let deadline = ContinuousClock.now + .seconds(180)
    while true {
      let client = ChatClient(gateway)
      defer { client.close() }
      do {
        _ = try await client.describe()
        return
      } catch {
        guard ContinuousClock.now < deadline, !Task.isCancelled else { throw error }
        try await Task.sleep(for: .milliseconds(100))
      }
    }
  }

  /// Asks the run under way to end after its step.
  static func stop(_ gateway: Endpoint) async {
    let client = TrainingClient(gateway)
    try? await client.stop()
    client.close()
  }
}

extension Interruption {
  /// Runs `body`; calls `first` at the first signal to end, and cancels `body` at the second.
  ///
  /// - Throws: what `body` throws; ``exitCode`` when the second signal ended it.
  static func ending(
    _ first: @escaping @Sendable () async -> Void, body: @escaping @Sendable () async throws -> Void
  ) async throws {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    try await withThrowingTaskGroup(of: Bool.self) { group in
      group.addTask {
        try await body()
        return true
      }
      group.addTask {
        try await withThrowingDiscardingTaskGroup { asking in
          var count = 0
          for await _ in signals {
            count += 1
            if count > 1 { throw exitCode }
            asking.addTask { await first() }
          }
        }
        return false
      }
      defer { group.cancelAll() }
      while let isDone = try await group.next() {
        if isDone { return }
      }
    }
  }
}
