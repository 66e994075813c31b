import ArgumentParser
import Kernels
import StageRuntime

@main
struct LanguageModel: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "chiasm-language", abstract: "Serves a slice of the language model.")

  @OptionGroup var arguments: StageArguments

  @Option(
    help: ArgumentHelp("Positions of the key-value cache, all sequences together.", valueName: "n"))
  var cacheTokens = 16384

  @Option(help: "How the cache holds keys and values: f32, bf16 or q8.")
  var kvCache = CacheType.float32

  @Option(
    help: ArgumentHelp(
      "Bytes of image rows of answers that are not over.", valueName: "n"))
  var pictureBytes = 1 << 30

  @Option(
    help: ArgumentHelp(
      """
      Slices of layers in each process: slice C of process I of N is the (C·N + I)-th of N·V even \
      ones. Of more than one, --next of the last process is the first.
      """, valueName: "V"))
  var virtualStages = 1

  func validate() throws {
    guard virtualStages > 0 else {
      throw ValidationError("\(StageError.invalidVirtualStages(virtualStages))")
    }
    guard virtualStages == 1 || arguments.layers == nil else {
      throw ValidationError("\(StageError.virtualStagesAndLayers)")
    }
    guard cacheTokens > 0 else { throw ValidationError("--cache-tokens must be positive") }
    guard pictureBytes > 0 else { throw ValidationError("--picture-bytes must be positive") }
  }

  func run() async throws {
    try await StageProcess.run(arguments, label: "language") { logger in
      var options = try arguments.options()
      options.cacheTokens = cacheTokens
      options.cacheType = kvCache
      options.virtualStages = virtualStages
      options.pictureBytes = pictureBytes
      return try LanguageService(options, logger: logger)
    }
  }
}
