import CKernels
import Tensors

/// Root-mean-square normalization of each row (arXiv:1910.07467).
///
/// y = x / √(mean(x²) + epsilon) ⊙ weight; x, y [T, D], weight [D]. Sums in float32 over
/// sixteen lanes, epsilon inside the root.
enum RMSNorm {
  static func forward(
    _ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor, on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the input of an RMS norm")
    let width = x.shape[1]
    try weight.requireParameters(width, "an RMS norm's weight")
    try y.require(.float32, what: "the output of an RMS norm")
    try y.require(shape: x.shape, "the output of an RMS norm")

    device.withFloats(of: weight) { weight in
      let (from, into) = (x.floatBase, y.floatBase)
      device.parallel(rows: x.shape[0], cost: width) { row in
        device.kernels.rms_norm(from + row * width, width, weight, epsilon, into + row * width)
      }
    }
    withExtendedLifetime((x, y)) {}
  }
}
