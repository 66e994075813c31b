import Checkpoint
import Tensors

/// What of a parameter a training checkpoint keeps in float32.
public enum TrainingStateKind: String, Sendable, Hashable, CaseIterable {
  /// The parameter itself, before it is rounded to the type of the model's files.
  case value
  case firstMoment = "exp_avg"
  case secondMoment = "exp_avg_sq"
}

/// The optimizer's part of a checkpoint.
public protocol TrainingState: Sendable {
  /// A float32 tensor of the parameter's shape, which is copied.
  ///
  /// - Throws: where the checkpoint has none: going on without would be another run.
  func tensor(_ kind: TrainingStateKind, of parameter: Weight) throws -> Tensor
}

/// Where a slice that trains takes its weights from.
public struct TrainingWeights: Sendable {
  /// Frozen weights, the types in which the model is stored, and what `state` does not have.
  public let model: CheckpointReader
  public let state: (any TrainingState)?

  public init(model: CheckpointReader, state: (any TrainingState)? = nil) {
    self.model = model
    self.state = state
  }
}
