import ArgumentParser
import Checkpoint
import Kernels
import Synchronization

/// `chiasm quantize`: a model folder with weights of 8 or 4 bits.
struct Quantize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write a model with weights of 8 or 4 bits.",
    discussion: """
      With q4 the language model's layers have 4 bits; vision encoder, projector, embedding and \
      head have 8. Norms, biases, layer scales, positions and the patch embedding stay as they \
      are, and weights whose rows are no multiple of 32. The model is read and written piece by \
      piece. A run that was ended goes on when the command is given again.
      """)

  @Argument(help: ArgumentHelp("Folder of the model.", valueName: "model"))
  var model: String

  @Argument(help: ArgumentHelp("Folder to write.", valueName: "folder"))
  var output: String

  @OptionGroup var storage: StorageOptions

  @Option(help: ArgumentHelp("Threads (default: all cores).", valueName: "n"))
  var threads: Int?

  @Option(help: ArgumentHelp("Size of a file of weights at most, about.", valueName: "MiB"))
  var shardSize = 2048

  @Flag(help: "Then compare the two models, as chiasm compare does by itself.")
  var check = false

  @Option(
    help: ArgumentHelp("With --check: samples to compare the two on.", valueName: "file"))
  var data: String?

  func validate() throws {
    guard threads ?? 1 > 0 else { throw ValidationError("--threads must be at least 1") }
    guard (1...1 << 20).contains(shardSize) else {
      throw ValidationError("--shard-size must be from 1 to \(1 << 20)")
    }
    if data != nil, !check { throw ValidationError("--data goes with --check") }
  }

  func run() throws {
    var work = try ModelQuantisation(source: model, recipe: storage.recipe) {
      try Quantiser.quantise($0, as: $1, into: $2)
    }
    work.threads = threads ?? Machine.cores
    work.shardBytes = shardSize << 20
    let progress = WritingLine("quantised")
    let outcome = try work.write(
      to: output, started: { Quantize.say($0) }, progress: { progress.show($0) })
    progress.end()
    for name in outcome.unquantised.prefix(10) {
      Terminal.say("\(name) stays as it is: its rows are no multiple of 32")
    }
    if outcome.unquantised.count > 10 {
      Terminal.say("and so do \(outcome.unquantised.count - 10) more")
    }
    Terminal.say(
      """
      wrote \(output): \(gigabytes(outcome.sourceBytes)) of weights are \
      \(gigabytes(outcome.bytes)) now
      """)
    guard check else { return }
    var arguments: [String] = []
    if let data { arguments += ["--data", data] }
    if let threads { arguments += ["--threads", "\(threads)"] }
    try ComparisonTexts.parse(arguments).compare(model, output)
  }

  private static func say(_ start: ModelQuantisation.Start) {
    switch start {
    case .new: break
    case .resumed(let files, let damaged):
      Terminal.say("going on: \(files) \(files == 1 ? "file is" : "files are") finished")
      if !damaged.isEmpty {
        Terminal.say(
          "written again, for they are damaged or gone: \(damaged.joined(separator: ", "))")
      }
    case .restarted(let changed):
      Terminal.say(
        "beginning anew, for they are not what they were: \(changed.joined(separator: ", "))")
    }
  }
}

/// How the parts of a model are stored.
struct StorageOptions: ParsableArguments {
  @Option(help: ArgumentHelp("q8, or q4 for the language model's layers.", valueName: "type"))
  var type: QuantisedType

  @Option(help: ArgumentHelp("Of the vision encoder: q8 or bf16.", valueName: "type"))
  var vision: WideType?

  @Option(help: ArgumentHelp("Of the projector: q8 or bf16.", valueName: "type"))
  var projector: WideType?

  @Option(help: ArgumentHelp("Of the embedding: q8, q4 or bf16.", valueName: "type"))
  var embedding: AnyType?

  @Option(help: ArgumentHelp("Of the head: q8, q4 or bf16.", valueName: "type"))
  var head: AnyType?

  enum QuantisedType: String, ExpressibleByArgument, CaseIterable { case q8, q4 }
  enum WideType: String, ExpressibleByArgument, CaseIterable { case q8, bf16 }
  enum AnyType: String, ExpressibleByArgument, CaseIterable { case q8, q4, bf16 }

  var recipe: QuantisationRecipe {
    var recipe = QuantisationRecipe(type == .q8 ? .q8 : .q4)
    func set(_ part: QuantisationRecipe.Part, _ name: String?) {
      guard let name else { return }
      recipe[part] = name == "bf16" ? .bfloat16 : name == "q8" ? .q8 : .q4
    }
    set(.vision, vision?.rawValue)
    set(.projector, projector?.rawValue)
    set(.embedding, embedding?.rawValue)
    set(.head, head?.rawValue)
    return recipe
  }
}

/// One line on the terminal that tells how far a model is written.
final class WritingLine: Sendable {
  private let verb: String
  private let start = ContinuousClock.now
  private let shown = Mutex((since: ContinuousClock.now - .seconds(1), done: -1, begun: -1))

  init(_ verb: String) { self.verb = verb }

  func show(_ progress: WritingProgress) {
    guard Terminal.errorsAreShown else { return }
    shown.withLock { shown in
      // What several threads report comes out of order.
      if shown.begun < 0 { shown.begun = progress.done }
      guard progress.done > shown.done, shown.since.duration(to: .now) > .milliseconds(100)
      else { return }
      shown.done = progress.done
      shown.since = .now
      let seconds = start.duration(to: .now) / .seconds(1)
      let rate = Double(progress.done - shown.begun) / max(seconds, 0.001)
      let left = Double(progress.total - progress.done) / max(rate, 1)
      let rest = seconds > 2 && rate > 1 ? ", \(Int(left) + 1) s left" : ""
      Terminal.saySoFar(
        """
        \(verb) \(gigabytes(progress.done)) of \(gigabytes(progress.total)), file \
        \(progress.number) of \(progress.fileCount)\(rest)
        """)
    }
  }

  func end() {
    if Terminal.errorsAreShown { Terminal.saySoFar("") }
  }
}

/// Bytes as people read them.
func gigabytes(_ bytes: Int) -> String {
  func tenths(_ value: Int) -> String { "\(value / 10).\(value % 10)" }
  return bytes < 1_000_000_000
    ? "\(tenths(bytes / 100_000)) MB" : "\(tenths(bytes / 100_000_000)) GB"
}
