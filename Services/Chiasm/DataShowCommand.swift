import ArgumentParser
import TrainingData

/// `chiasm data show`: a sample as it is learnt.
struct DataShowCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show",
    abstract: "Show a sample as the model gets it, and what of it is learnt.",
    discussion: """
      On a terminal, what is learnt is green; elsewhere it stands between ⟦ and ⟧.
      """)

  @OptionGroup var data: DataArguments

  @Option(help: ArgumentHelp("The sample, counted from 0 over all data sets.", valueName: "n"))
  var sample = 0

  func run() async throws {
    let source = try data.source()
    let view = try source.view(ofSample: sample)
    let name = view.id.map { " “\($0)”" } ?? ""
    var text = "sample \(sample) of \(source.count)\(name)\n"
    text += "\(view.source.file):\(view.source.line) [\(view.source.dataset)]\n"
    for picture in view.pictures {
      text += "\(picture.name): \(picture.width) × \(picture.height) pixels, "
      text += "\(picture.tiles) \(picture.tiles == 1 ? "tile" : "tiles")\n"
    }
    text += "\(view.tokens) tokens, \(view.imageTokens) of them image tokens, "
    text += "\(view.learntTokens) learnt"
    if view.uncutTokens > view.tokens {
      text += "; cut from \(view.uncutTokens) to the limit"
    }
    Terminal.writeAnswer(text + "\n\n")
    let isColoured = Terminal.outputIsShown
    for span in view.spans {
      if span.isLearnt { Terminal.write(isColoured ? "\u{1B}[32;1m" : "⟦") }
      Terminal.writeAnswer(span.text)
      if span.isLearnt { Terminal.write(isColoured ? "\u{1B}[0m" : "⟧") }
    }
    Terminal.write("\n")
  }
}
