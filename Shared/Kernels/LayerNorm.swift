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
}
