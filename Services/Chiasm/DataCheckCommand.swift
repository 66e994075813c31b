import ArgumentParser
import Synchronization
import Training
import TrainingData

/// `chiasm data check`: looks at every sample of a meta file.
struct DataCheckCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Check every sample: its words, roles, tokens and pictures.",
    discussion: """
      Names each flawed sample by file and line, and fails when there is one. A sample that is \
      merely over-long is named too: training cuts it on the right, as the reference does. \
      Pictures are decoded in full.
      """)

  @OptionGroup var data: DataArguments

  @Option(help: ArgumentHelp("Samples of a step, for the estimate.", valueName: "n"))
  var globalBatchSize = 512

  @Option(
    name: [.long, .customLong("per-device-train-batch-size")],
    help: ArgumentHelp("Samples of a micro-batch, for the estimate.", valueName: "n"))
  var microBatchSize = 1

  @Flag(help: "Estimate with micro-batches of several samples up to the longest length.")
  var pack = false

  @Flag(help: "Estimate with every sample padded to the longest length.")
  var padToMax = false

  @Option(help: "Seed of the order, for the estimate.")
  var seed: UInt64 = 42

  @Option(help: ArgumentHelp("Threads (default: all cores).", valueName: "n"))
  var workers: Int?

  @Flag(help: "Read the pictures' headers alone.")
  var headersOnly = false

  @Flag(help: "Write the report as JSON.")
  var json = false

  /// How training would take the data.
  private var training: TrainingConfiguration {
    var training = TrainingConfiguration()
    training.globalBatchSize = globalBatchSize
    training.microBatchSize = microBatchSize
    training.maxSequenceLength = data.maxSeqLength
    training.pack = pack
    training.padToMax = padToMax
    training.seed = seed
    return training
  }

  func validate() throws {
    guard workers ?? 1 > 0 else { throw ValidationError("--workers must be at least 1") }
    let problems = training.problems().filter {
      // Of a run: nobody asks for one here.
      if case .missingSetting = $0 { false } else { true }
    }
    guard problems.isEmpty else {
      throw ValidationError(problems.map { "\($0)" }.joined(separator: "\n"))
    }
  }

  func run() async throws {
    let check = DataCheck(
      try data.source(), depth: headersOnly ? .headers : .pictures,
      workers: workers ?? Machine.cores)
    let shown = Mutex(-1)
    let report = try await check.run { done, all in
      guard Terminal.errorsAreShown else { return }
      let share = 100 * done / max(all, 1)
      shown.withLock { shown in
        guard share > shown else { return }
        shown = share
        Terminal.saySoFar("checked \(done) of \(all) samples (\(share) %)")
      }
    }
    if Terminal.errorsAreShown { Terminal.saySoFar("") }
    let estimate = report.steps(training)
    if json {
      Terminal.write(report.json(estimate))
    } else {
      Terminal.writeAnswer(DataTable.render(report, estimate))
    }
    if !report.flaws.isEmpty { throw ExitCode.failure }
  }
}
