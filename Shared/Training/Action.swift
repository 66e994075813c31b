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
