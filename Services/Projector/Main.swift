import ArgumentParser
import StageRuntime

@main
struct Projector: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chiasm-projector", abstract: "Serves the projector.")

  @OptionGroup var arguments: StageArguments

  func validate() throws {
    if arguments.stage != nil || arguments.layers != nil {
      throw ValidationError("the projector has no layers; leave --stage and --layers out")
    }
  }

  func run() async throws {
    try await StageProcess.run(arguments, label: "projector") {
      try ProjectorService(arguments.options(), logger: $0)
    }
  }
}
