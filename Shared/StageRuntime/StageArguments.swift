import ArgumentParser
import Kernels
import Logging
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The flags that all stage executables share.
public struct StageArguments: ParsableArguments {
  @Option(help: ArgumentHelp("Model folder in the release format.", valueName: "folder"))
  public var model: String

  @Option(
    help: ArgumentHelp(
      "Which slice of the layers to hold: the I-th of N even ones, counted from 0.",
      valueName: "I/N"))
  public var stage: String?

  @Option(
    help: ArgumentHelp(
      "Which layers to hold, both included, from 0; of a language model also A-B,C-D.",
      valueName: "A-B"))
  public var layers: String?

  @Option(
    help: ArgumentHelp(
      "Where to listen: unix:PATH or tcp:HOST:PORT. TCP has no authentication.",
      valueName: "address"))
  public var listen: String?

  @Flag(help: "Speak over standard input and output instead.")
  public var stdio = false

  @Option(
    help: ArgumentHelp(
      "Where the output goes: unix:PATH, tcp:HOST:PORT, or, back over --stdio to the "
        + "service of that name, peer:NAME.", valueName: "address"))
  public var next: String?

  @Option(
    help: ArgumentHelp("cpu, cpu:bf16 (rounds inputs of products) or cuda:N.", valueName: "device"))
  public var device = "cpu"

  @Option(help: ArgumentHelp("Threads to compute with (default: all cores).", valueName: "n"))
  public var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Shared memory for tensors on their way to the next stage.", valueName: "bytes"))
  public var arenaBytes = 256 << 20

  @Option(help: ArgumentHelp("trace, debug, info, warning, error.", valueName: "level"))
  public var logLevel: Logger.Level = .info

  public init() {}

  public func validate() throws {
    if stage != nil && layers != nil {
      throw ValidationError("give one of --stage and --layers")
    }
    if (listen != nil) == stdio { throw ValidationError("\(StageError.listenOrStdio)") }
    if next?.hasPrefix("peer:") == true && !stdio {
      throw ValidationError("--next peer:NAME goes back over --stdio; give a socket's address")
    }
    if arenaBytes < 1 { throw ValidationError("--arena-bytes must be positive") }
    if let threads, threads < 1 || threads > 1024 {
      throw ValidationError("--threads \(threads) is not between 1 and 1024")
    }
  }

  /// The flags as a stage's options.
  public func options() throws -> StageOptions {
    let slice: StageOptions.Slice =
      if let layers {
        try .init(layers: layers)
      } else {
        try .init(stage: stage ?? "0/1")
      }
    return StageOptions(
      model: model, slice: slice, next: try next.map { try Next(parsing: $0) },
      device: device, threads: threads ?? Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))),
      arenaBytes: arenaBytes)
  }

  /// Where the stage listens.
  public func endpoint() throws -> Endpoint {
    try listen.map { try Endpoint(parsing: $0) } ?? .stdio
  }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// `--kv-cache`: f32, bf16 or q8.
extension CacheType: ExpressibleByArgument {}
