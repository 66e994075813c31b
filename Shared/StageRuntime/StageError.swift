import Transport

/// Ways in which a stage cannot be set up as its flags say.
public enum StageError: Error, Equatable, CustomStringConvertible {
  /// `--stage` is not of the form I/N with 0 ≤ I < N.
  case invalidStage(String)
  /// `--layers` is not of the form A-B with A ≤ B.
  case invalidLayers(String)
  /// Both or neither of `--listen` and `--stdio`.
  case listenOrStdio
  /// A stage that hands its output on was not told where to.
  case nextMissing(role: String, layers: String, of: Int)
  /// `--next exec:COMMAND`: a stage that nobody else can reach.
  case nextPrivate(String)
  /// The last stage was told to hand its output on.
  case nextUnexpected(role: String)

  public var description: String {
    switch self {
    case .invalidStage(let text):
      "--stage \(text) is not of the form I/N, counted from 0: the first of two is 0/2"
    case .invalidLayers(let text):
      "--layers \(text) is not of the form A-B, both included and counted from 0"
    case .listenOrStdio:
      "give one of --listen unix:PATH, --listen tcp:HOST:PORT and --stdio"
    case .nextMissing(let role, let layers, let count):
      "this \(role) stage holds layers \(layers) of \(count) and must hand its output on; "
        + "give --next the address of the following stage"
    case .nextPrivate(let command):
      "--next exec:\(command) would start a stage that the gateway cannot reach; make it a service "
        + "of the mesh file with that command and --stdio, and give its socket as --next"
    case .nextUnexpected(let role):
      "this is the last \(role) stage, nothing comes after it; leave --next out"
    }
  }
}
