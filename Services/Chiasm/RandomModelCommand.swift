import ArgumentParser
import Checkpoint
import Tensors

/// `chiasm random-model`: a model folder with random weights.
struct RandomModelCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "random-model",
    abstract: "Write a model with random weights, to measure speed with or to train.",
    discussion: """
      The default shape has 0.7 B parameters: 24 vision layers of 1024 at 448 px, 24 language \
      layers of 1024, 64,000 rows; with --config v1.2 it is that of InternVL-Chat-V1.2, with 40 B. \
      Its words mean nothing. With --for-training biases start at zero and layer scales at the \
      configuration's initializer_factor. With q8 and q4 random panels are written as they are, \
      without quantising anything; a run that was ended goes on when the command is given again.
      """)

  @Argument(help: ArgumentHelp("Folder to write.", valueName: "folder"))
  var output: String

  @Option(help: ArgumentHelp("Model folder to take the tokenizer from.", valueName: "folder"))
  var tokenizer: String

  @Option(
    help: ArgumentHelp("A config.json with another shape, or v1.2.", valueName: "file"))
  var config: String?

  @Flag(help: "Start values for training from nothing.")
  var forTraining = false

  @Option(help: ArgumentHelp("float32, bfloat16, q8 or q4.", valueName: "type"))
  var type: WeightType = .bfloat16

  @Option(help: "The same seed gives the same weights.")
  var seed: UInt64 = 1

  @Option(help: ArgumentHelp("Threads (default: all cores), for q8 and q4.", valueName: "n"))
  var threads: Int?

  enum WeightType: String, ExpressibleByArgument {
    case float32, bfloat16, q8, q4
  }

  func validate() throws {
    guard threads ?? 1 > 0 else { throw ValidationError("--threads must be at least 1") }
    if forTraining, type == .q8 || type == .q4 {
      throw ValidationError("a model of \(type) cannot be trained; leave --for-training out")
    }
  }

  func run() throws {
    let configuration =
      switch config {
      case nil: try RandomModel.benchmarkConfiguration()
      case "v1.2": try RandomModel.releaseConfiguration()
      case .some(let file): try ModelConfiguration.load(file: file)
      }
    switch type {
    case .float32, .bfloat16:
      guard configuration.quantisation == nil else {
        throw ValidationError(
          "\(config ?? "") is of a quantised model; give --type q8 or q4, or another file")
      }
      try RandomModel.write(
        configuration, seed: seed, scalarType: type == .float32 ? .float32 : .bfloat16,
        to: output, tokenizerFolder: tokenizer, forTraining: forTraining)
      Terminal.say("wrote \(output)")
    case .q8, .q4:
      var model = RandomQuantisedModel(
        configuration, recipe: QuantisationRecipe(type == .q8 ? .q8 : .q4), seed: seed)
      model.threads = threads ?? Machine.cores
      let progress = WritingLine("wrote")
      try model.write(to: output, tokenizerFolder: tokenizer) { progress.show($0) }
      progress.end()
      Terminal.say(
        "wrote \(output): \(model.parameterCount) weights, \(gigabytes(model.byteCount))")
    }
  }
}
