import ArgumentParser
import Mesh
import TrainingData

/// `chiasm data`: looks at training data.
struct DataCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "data", abstract: "Look at training data before training on it.",
    subcommands: [DataCheckCommand.self, DataShowCommand.self])
}

/// Which data, and how a model would see them.
struct DataArguments: ParsableArguments {
  @Argument(
    help: ArgumentHelp(
      "Meta file: a JSON object of data sets, each with root and annotation.", valueName: "meta"))
  var meta: String

  @Option(
    help: ArgumentHelp(
      "Model folder whose tokenizer and picture size count (default: $CHIASM_MODEL, else the "
        + "running mesh's model).", valueName: "folder"))
  var model: String?

  @Option(help: ArgumentHelp("Tokens of a sample at most.", valueName: "n"))
  var maxSeqLength = 2048

  @Option(help: "Chat template, instead of the model's.")
  var template: String?

  @Option(help: ArgumentHelp("Shortest side of a picture, in pixels.", valueName: "n"))
  var minSide = PictureLimits().minSide

  @Option(help: ArgumentHelp("Longest side of a picture, in pixels.", valueName: "n"))
  var maxSide = PictureLimits().maxSide

  @Option(help: ArgumentHelp("Pixels of a picture at most.", valueName: "n"))
  var maxPixels = PictureLimits().maxPixels

  func validate() throws {
    for (name, value) in [
      ("--min-side", minSide), ("--max-side", maxSide), ("--max-pixels", maxPixels),
      ("--max-seq-length", maxSeqLength),
    ] where value < 1 {
      throw ValidationError("\(name) must be at least 1")
    }
  }

  func source() throws -> SampleSource {
    try SampleSource(
      metaPath: meta, modelFolder: modelFolder(),
      options: DataOptions(
        maxSequenceLength: maxSeqLength, template: template,
        pictureLimits: PictureLimits(minSide: minSide, maxSide: maxSide, maxPixels: maxPixels)))
  }

  private func modelFolder() throws -> String {
    if let model { return model }
    if let model = Environment.current["CHIASM_MODEL"], !model.isEmpty { return model }
    let directory = RunDirectory(path: RunDirectory.standardPath(Environment.current))
    if let model = try? MeshState.running(in: directory).model { return model }
    throw ValidationError(
      "which model is this for? Its tokenizer counts the tokens: name its folder with --model")
  }
}
