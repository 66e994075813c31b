import ArgumentParser
import StageRuntime

@main
struct VisionEncoder: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chiasm-vision", abstract: "Serves a slice of the vision encoder.")

  @OptionGroup var arguments: StageArguments

  func run() async throws {
    try await StageProcess.run(arguments, label: "vision") {
      try VisionService(arguments.options(), logger: $0)
    }
  }
}
