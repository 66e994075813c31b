import Checkpoint
import Tensors

/// A checkpoint's folder as what parameters go on from.
extension TrainingStateReader: TrainingState {
  public func tensor(_ kind: TrainingStateKind, of parameter: String) throws -> Tensor? {
    switch kind {
    case .value: try value(of: parameter)
    case .firstMoment: try firstMoment(of: parameter)
    case .secondMoment: try secondMoment(of: parameter)
    }
  }
}
