import Checkpoint
import Kernels
import Tensors

/// The normalization in front of a block, as the model's configuration names it.
enum Normalization: Sendable {
  case rootMeanSquare(weight: Tensor, epsilon: Float)
  case layer(weight: Tensor, bias: Tensor, epsilon: Float)

  /// A layer norm where the checkpoint has a bias, otherwise a root-mean-square norm.
  init(
    _ weight: Weight, bias: Weight? = nil, epsilon: Float, weights: inout StageWeights
  ) throws {
    let scale: Tensor = try weights.take(weight)
    if let bias = try weights.take(bias) {
      self = .layer(weight: scale, bias: bias, epsilon: epsilon)
    } else {
      self = .rootMeanSquare(weight: scale, epsilon: epsilon)
    }
  }

  func apply(_ x: Tensor, into y: Tensor, on device: any Device) throws {
    switch self {
    case .rootMeanSquare(let weight, let epsilon):
      try device.rmsNorm(x, weight: weight, epsilon: epsilon, into: y)
    case .layer(let weight, let bias, let epsilon):
      try device.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon, into: y)
    }
  }
}
