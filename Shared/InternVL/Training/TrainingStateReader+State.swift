import Checkpoint
import Tensors

/// A checkpoint's folder as what parameters go on from.
extension TrainingStateReader: TrainingState {
  public func tensor(_ kind: TrainingStateKind, of parameter: Weight) throws -> Tensor {
    try require([parameter])
    let name = parameter.name
    let tensor =
      switch kind {
      case .value: try value(of: name)
      case .firstMoment: try firstMoment(of: name)
      case .secondMoment: try secondMoment(of: name)
      }
    guard let tensor else {
      throw CheckpointError.missingState(folder: folder, parameter: name, state: kind.rawValue)
    }
    return tensor
  }
}
