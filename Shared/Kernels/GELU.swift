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
}
