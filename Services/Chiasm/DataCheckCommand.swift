import ArgumentParser
import Synchronization
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

  @Option(help: "Seed of the order, for the estimate.")
  var seed: UInt64 = 42

  @Option(help: ArgumentHelp("Threads (default: all cores).", valueName: "n"))
  var workers: Int?

  @Flag(help: "Read the pictures' headers alone.")
  var headersOnly = false

  @Flag(help: "Write the report as JSON.")
  var json = false

  func validate() throws {
    guard globalBatchSize > 0, workers ?? 1 > 0 else {
      throw ValidationError("--global-batch-size and --workers must be at least 1")
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
    let estimate = report.steps(globalBatchSize: globalBatchSize, seed: seed)
    if json {
      Terminal.write(report.json(estimate))
    } else {
      Terminal.writeAnswer(DataTable.render(report, estimate))
    }
    if !report.flaws.isEmpty { throw ExitCode.failure }
  }
}
