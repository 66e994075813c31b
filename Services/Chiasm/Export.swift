import ArgumentParser
import Checkpoint
import Tensors

/// `chiasm export`: a checkpoint of training as a model.
struct Export: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write a checkpoint of training as a model alone.",
    discussion: """
      The optimizer's state stays behind. Weights that were trained are exact in float32, also \
      where the checkpoint has them rounded to bfloat16 for chat.
      """)

  @Argument(help: ArgumentHelp("Folder of a checkpoint.", valueName: "checkpoint"))
  var checkpoint: String

  @Argument(help: ArgumentHelp("Folder to write.", valueName: "folder"))
  var output: String

  @Option(
    help: ArgumentHelp(
      "float32 or bfloat16; each weight as it is stored if not given.", valueName: "type"))
  var type: Assemble.WeightType?

  func run() throws {
    let scalarType = type.map { $0 == .float32 ? ScalarType.float32 : .bfloat16 }
    let model = try ModelExport.write(checkpoint: checkpoint, to: output, as: scalarType)
    Terminal.say(
      """
      wrote \(output): \(model.vision.layerCount) vision layers, \
      \(model.language.layerCount) language layers
      """)
  }
}
