import CKernels
import Tensors

/// x ← x · Φ(x), Φ the distribution function of the normal distribution (arXiv:1606.08415):
/// the exact form, not the one by tanh.
enum GELU {
  static func forward(_ x: Tensor, on device: CPUDevice) throws {
    try x.require(.float32, what: "the input of GELU")
    let base = x.floatBase
    device.parallel(elements: x.count) { range in
      device.kernels.gelu(base + range.lowerBound, range.count)
    }
    withExtendedLifetime(x) {}
  }

  /// dX = dY · (Φ(x) + x · φ(x)), φ the density.
  static func gradient(dY: Tensor, x: Tensor, into dX: Tensor, on device: CPUDevice) throws {
    try x.require(.float32, what: "the input of GELU")
    for (tensor, what) in [(dY, "the gradient of GELU"), (dX, "the gradient of GELU's input")] {
      try tensor.require(.float32, what: what)
      try tensor.require(shape: x.shape, what)
    }
    let (from, inputs, into) = (dY.floatBase, x.floatBase, dX.floatBase)
    device.parallel(elements: x.count) { range in
      let first = range.lowerBound
      device.kernels.gelu_gradient(from + first, inputs + first, range.count, into + first)
    }
    withExtendedLifetime((dY, x, dX)) {}
  }
}
