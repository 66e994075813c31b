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

  /// With x̂ = x / √(mean(x²) + epsilon) and g = dY ⊙ weight: dX = (g − x̂ · mean(g ⊙ x̂)) / √(…),
  /// dWeight += Σ dY ⊙ x̂.
  static func gradient(
    dY: Tensor, x: Tensor, weight: Tensor, epsilon: Float, adding: Bool, into dX: Tensor?,
    weight dWeight: Tensor?, on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the input of an RMS norm")
    let width = x.shape[1]
    try weight.requireParameters(width, "an RMS norm's weight")
    try dY.requireRows(like: x, "the gradient of an RMS norm")
    try dX?.requireRows(like: x, "the gradient of an RMS norm's input")
    try dWeight?.requireGradient([width], "the gradient of an RMS norm's weight")
    guard dX != nil || dWeight != nil else { return }

    device.withFloats(of: weight) { weight in
      let (from, inputs, into) = (dY.floatBase, x.floatBase, dX?.floatBase)
      device.parallelSums(rows: x.shape[0], width: width, into: [dWeight]) { row, sums in
        let start = row * width
        device.kernels.rms_norm_gradient(
          from + start, inputs + start, width, weight, epsilon, adding, into.map { $0 + start },
          sums[0])
      }
    }
    withExtendedLifetime((dY, x, dX, dWeight)) {}
  }
}
