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
  /// The last of several stages that form a ring was not told where the first one is.
  case ringOpen(layers: [Range<Int>])
  /// Several slices for a stage that holds one.
  case severalSlices(role: String)
  /// Slices that touch, overlap or go backwards.
  case slicesOutOfOrder([Range<Int>])
  case invalidVirtualStages(Int)
  /// `--virtual-stages` beside `--layers`, which names all slices itself.
  case virtualStagesAndLayers

  public var description: String {
    switch self {
    case .invalidStage(let text):
      "--stage \(text) is not of the form I/N, counted from 0: the first of two is 0/2"
    case .invalidLayers(let text):
      "--layers \(text) is not of the form A-B, or A-B,C-D for several slices, all included and "
        + "counted from 0"
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
    case .ringOpen(let layers):
      "this stage holds \(layers.count) slices of layers and the model's end; give --next the "
        + "address of the first language stage, which holds the slices between"
    case .severalSlices(let role):
      "a \(role) stage holds one slice of layers, several are for language stages alone"
    case .slicesOutOfOrder(let ranges):
      "the slices of layers "
        + ranges.map { "\($0.lowerBound)-\($0.upperBound - 1)" }.joined(separator: ", ")
        + " are not in order with others between them; make one of those that touch"
    case .invalidVirtualStages(let count): "--virtual-stages \(count) is not a positive number"
    case .virtualStagesAndLayers:
      "--layers names every slice itself; leave --virtual-stages out"
    }
  }
}
