import CKernels
import Tensors

/// Layer normalization of each row (arXiv:1607.06450).
///
/// y = (x − mean) / √(variance + epsilon) ⊙ weight + bias; x, y [T, D], weight, bias [D]. The
/// variance is that of the population, summed over differences from the mean.
enum LayerNorm {
  static func forward(
    _ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, into y: Tensor,
    on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the input of a layer norm")
    let width = x.shape[1]
    try weight.requireParameters(width, "a layer norm's weight")
    try bias.requireParameters(width, "a layer norm's bias")
    try y.require(.float32, what: "the output of a layer norm")
    try y.require(shape: x.shape, "the output of a layer norm")

    device.withFloats(of: weight) { weight in
      device.withFloats(of: bias) { bias in
        let (from, into) = (x.floatBase, y.floatBase)
        device.parallel(rows: x.shape[0], cost: width) { row in
          device.kernels.layer_norm(
            from + row * width, width, weight, bias, epsilon, into + row * width)
        }
      }
    }
    withExtendedLifetime((x, y)) {}
  }

  /// With x̂ = (x − mean) / √(variance + epsilon) and g = dY ⊙ weight:
  /// dX = (g − mean(g) − x̂ · mean(g ⊙ x̂)) / √(…), dWeight += Σ dY ⊙ x̂, dBias += Σ dY.
  static func gradient(
    dY: Tensor, x: Tensor, weight: Tensor, epsilon: Float, adding: Bool, into dX: Tensor?,
    weight dWeight: Tensor?, bias dBias: Tensor?, on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the input of a layer norm")
    let width = x.shape[1]
    try weight.requireParameters(width, "a layer norm's weight")
    try dY.requireRows(like: x, "the gradient of a layer norm")
    try dX?.requireRows(like: x, "the gradient of a layer norm's input")
    try dWeight?.requireGradient([width], "the gradient of a layer norm's weight")
    try dBias?.requireGradient([width], "the gradient of a layer norm's bias")
    guard dX != nil || dWeight != nil || dBias != nil else { return }

    device.withFloats(of: weight) { weight in
      let (from, inputs, into) = (dY.floatBase, x.floatBase, dX?.floatBase)
      device.parallelSums(rows: x.shape[0], width: width, into: [dWeight, dBias]) { row, sums in
        let start = row * width
        device.kernels.layer_norm_gradient(
          from + start, inputs + start, width, weight, epsilon, adding, into.map { $0 + start },
          sums[0], sums[1])
      }
    }
    withExtendedLifetime((dY, x, dX, dWeight, dBias)) {}
  }
}
