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
      layers of 1024, 64,000 rows. Its words mean nothing. With --for-training biases start at \
      zero and layer scales at the configuration's initializer_factor.
      """)

  @Argument(help: ArgumentHelp("Folder to write.", valueName: "folder"))
  var output: String

  @Option(help: ArgumentHelp("Model folder to take the tokenizer from.", valueName: "folder"))
  var tokenizer: String

  @Option(help: ArgumentHelp("A config.json with another shape.", valueName: "file"))
  var config: String?

  @Flag(help: "Start values for training from nothing.")
  var forTraining = false

  @Option(help: ArgumentHelp("float32 or bfloat16.", valueName: "type"))
  var type: WeightType = .bfloat16

  @Option(help: "The same seed gives the same weights.")
  var seed: UInt64 = 1

  enum WeightType: String, ExpressibleByArgument {
    case float32, bfloat16
  }

  func run() throws {
    try RandomModel.write(
      config.map { try ModelConfiguration.load(file: $0) }
        ?? RandomModel.benchmarkConfiguration(),
      seed: seed, scalarType: type == .float32 ? .float32 : .bfloat16, to: output,
      tokenizerFolder: tokenizer, forTraining: forTraining)
    Terminal.say("wrote \(output)")
  }
}
