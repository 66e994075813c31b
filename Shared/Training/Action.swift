/// One thing a stage does in a training step.
public struct Action: Sendable, Hashable {
  public enum Kind: Sendable, Hashable, CaseIterable {
    case forward
    /// The gradients of input and weights.
    case backward
    /// The gradient of the input alone, and
    case backwardInput
    /// the weights' gradients, which that left over (Zero Bubble, arXiv:2401.10241).
    case backwardWeight
  }

  public var kind: Kind
  public var microBatch: Int
  /// Which of the process's slices of layers, counted from 0.
  public var chunk: Int

  public init(_ kind: Kind, microBatch: Int, chunk: Int = 0) {
    self.kind = kind
    self.microBatch = microBatch
    self.chunk = chunk
  }
}

extension Action.Kind {
  /// As the papers draw it: F, B, or of a backward in two parts B and W.
  public var letter: String {
    switch self {
    case .forward: "F"
    case .backward, .backwardInput: "B"
    case .backwardWeight: "W"
    }
  }
}

extension Action: CustomStringConvertible {
  /// "F3", or "F3/1" of the second slice.
  public var description: String {
    chunk == 0 ? "\(kind.letter)\(microBatch)" : "\(kind.letter)\(microBatch)/\(chunk)"
  }
}
