import CKernels
import Tensors

/// x [T, D] ← x + scale [D] ⊙ y, or x + y: the residual connection, with or without the
/// layer scale of arXiv:2103.17239.
enum Residual {
  static func forward(_ y: Tensor, scale: Tensor?, to x: Tensor, on device: CPUDevice) throws {
    try x.requireRows(nil, "the residual stream")
    let width = x.shape[1]
    try y.require(.float32, what: "a block's output")
    try y.require(shape: x.shape, "a block's output")
    try scale?.requireParameters(width, "a layer scale")

    device.withFloats(ofOptional: scale) { scale in
      let (from, into) = (y.floatBase, x.floatBase)
      device.parallel(rows: x.shape[0], cost: width) { row in
        device.kernels.add_scaled(from + row * width, scale, width, into + row * width)
      }
    }
    withExtendedLifetime((x, y)) {}
  }
}
