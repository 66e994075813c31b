import ArgumentParser
import Checkpoint
import Training

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// `chiasm curve`: the losses of training runs as a picture.
struct Curve: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Draw the loss curves of training runs.",
    discussion: "The files are the train_log.jsonl of runs' output folders.")

  @Argument(help: "Logs of training, a curve each.")
  var files: [String]

  @Option(help: ArgumentHelp("Picture to write.", valueName: "file"))
  var svg: String

  @Flag(help: "Draw losses on a logarithmic scale.")
  var logScale = false

  @Option(
    help: ArgumentHelp(
      "Weight of the steps before in the line, as TensorBoard's slider; 0: none.",
      valueName: "x"))
  var smoothing = 0.9

  func validate() throws {
    guard (0..<1).contains(smoothing) else {
      throw ValidationError("--smoothing is \(smoothing); give a number from 0 to below 1")
    }
  }

  func run() async throws {
    let names = LossChart.names(ofLogs: files)
    let series = try zip(files, names).map { file, name in
      let bytes = try readFile(file, limit: TrainingLog.fileLimit)
      do {
        return LossChart.Series(name: name, log: try TrainingLog.read(bytes))
      } catch let error as TrainingError {
        throw ValidationError("\(file): \(error)")
      }
    }
    let chart = LossChart(isLogarithmic: logScale, smoothing: smoothing)
    do {
      try Data(chart.svg(series).utf8).write(to: URL(filePath: svg))
    } catch {
      throw ValidationError("\(svg) cannot be written: \(error)")
    }
    let steps = series.map { "\($0.name): \($0.points.count) steps" }
    Terminal.say("wrote \(svg): \(steps.joined(separator: ", "))")
  }
}
