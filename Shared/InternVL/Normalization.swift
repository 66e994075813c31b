import Checkpoint
import Kernels
import Tensors

/// The normalization in front of a block, as the model's configuration names it.
enum Normalization: Sendable {
  case rootMeanSquare(weight: ModelWeight, epsilon: Float)
  case layer(weight: ModelWeight, bias: ModelWeight, epsilon: Float)

  /// A layer norm where the checkpoint has a bias, otherwise a root-mean-square norm.
  init(
    _ weight: Weight, bias: Weight? = nil, epsilon: Float, weights: inout StageWeights
  ) throws {
    let scale: ModelWeight = try weights.take(weight)
    if let bias = try weights.take(bias) {
      self = .layer(weight: scale, bias: bias, epsilon: epsilon)
    } else {
      self = .rootMeanSquare(weight: scale, epsilon: epsilon)
    }
  }

  var isTrained: Bool {
    switch self {
    case .rootMeanSquare(let weight, _): weight.isTrained
    case .layer(let weight, let bias, _): weight.isTrained || bias.isTrained
    }
  }

  /// y may be x.
  func forward(_ x: Tensor, into y: Tensor, on device: any Device) throws {
    switch self {
    case .rootMeanSquare(let weight, let epsilon):
      try device.rmsNorm(x, weight: weight.value, epsilon: epsilon, into: y)
    case .layer(let weight, let bias, let epsilon):
      try device.layerNorm(x, weight: weight.value, bias: bias.value, epsilon: epsilon, into: y)
    }
  }

  /// dX, written or added, may be dY; nil: not wanted.
  func backward(
    dY: Tensor, x: Tensor, adding: Bool = false, into dX: Tensor?, on device: any TrainingDevice
  ) throws {
    switch self {
    case .rootMeanSquare(let weight, let epsilon):
      try device.rmsNormGradient(
        dY: dY, x: x, weight: weight.value, epsilon: epsilon, adding: adding, into: dX,
        weight: weight.gradient)
    case .layer(let weight, let bias, let epsilon):
      try device.layerNormGradient(
        dY: dY, x: x, weight: weight.value, epsilon: epsilon, adding: adding, into: dX,
        weight: weight.gradient, bias: bias.gradient)
    }
  }
}
