import Checkpoint
import InternVL
import Kernels
import Messages
import Sampling
import Tensors
import Transport

extension InternVLError: StatusConvertible {
  public var statusCode: StatusCode {
    switch self {
    case .cacheFull: .resourceExhausted
    case .beyondContext: .outOfRange
    case .positionGap: .unavailable
    case .layersOutsideModel, .unevenSplit, .wrongStage: .failedPrecondition
    default: .invalidArgument
    }
  }
}

extension KernelError: StatusConvertible {
  public var statusCode: StatusCode {
    switch self {
    case .tokenOutOfRange, .unknownDevice: .invalidArgument
    default: .internal
    }
  }
}

extension SamplingError: StatusConvertible {
  public var statusCode: StatusCode { .invalidArgument }
}

extension CheckpointError: StatusConvertible {
  public var statusCode: StatusCode {
    isLackOfRoom ? .resourceExhausted : .failedPrecondition
  }
}

extension CheckpointError {
  /// Whether a disk is full.
  var isLackOfRoom: Bool {
    switch self {
    case .diskFull, .noRoom: true
    default: false
    }
  }
}

extension TensorError: StatusConvertible {
  public var statusCode: StatusCode { .invalidArgument }
}
