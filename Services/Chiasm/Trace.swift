import ArgumentParser
import Checkpoint
import Training

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// `chiasm trace`: a pipeline's steps as a picture.
struct TraceCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Draw what each process did in a step of training.",
    discussion: "The file is that of `chiasm train --trace`; Perfetto shows it, too.")

  @Argument(help: "A trace.")
  var file: String

  @Option(help: ArgumentHelp("Picture to write.", valueName: "file"))
  var svg: String

  @Option(help: ArgumentHelp("Which step; default: the middle one.", valueName: "n"))
  var step: Int?

  func run() async throws {
    let trace = try Trace(chromeJSON: bytes())
    let steps = trace.steps
    guard !steps.isEmpty else { throw ValidationError("\(file) has no actions in it") }
    let shown = step ?? steps[steps.count / 2]
    guard steps.contains(shown) else {
      throw ValidationError("\(file) has steps \(steps[0]) to \(steps[steps.count - 1])")
    }
    let drawing = TraceDrawing(title: "Step \(shown)")
    try Data(drawing.svg(trace, step: shown).utf8).write(to: URL(filePath: svg))
    Terminal.say("wrote \(svg): step \(shown), \(Percent(trace.bubble(ofStep: shown))) idle")
  }

  private func bytes() throws -> [UInt8] {
    do {
      return try readFile(file, limit: Trace.fileLimit)
    } catch CheckpointError.tooLarge(_, let byteCount, let limit) {
      throw ValidationError(
        "\(file) has \(byteCount) bytes, and a trace may have \(limit); write one of fewer steps "
          + "(chiasm train --trace … --stop-after 20)")
    }
  }
}
