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

  /// x [G · R, D] ← x + factors[g] · scale ⊙ y, a factor for each group of R rows: drop path
  /// (arXiv:1603.09382).
  static func forward(
    _ y: Tensor, scale: Tensor?, factors: [Float], to x: Tensor, on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the residual stream")
    let width = x.shape[1]
    try y.requireRows(like: x, "a block's output")
    try scale?.requireParameters(width, "a layer scale")
    let groupRows = try rowsOfGroup(x, factors)

    device.withFloats(ofOptional: scale) { scale in
      let (from, into) = (y.floatBase, x.floatBase)
      device.parallel(rows: x.shape[0], cost: width) { row in
        let factor = factors[row / groupRows]
        // A dropped block leaves the stream alone, whatever it holds.
        guard factor != 0 else { return }
        device.kernels.add_scaled_by(
          from + row * width, scale, factor, width, into + row * width)
      }
    }
    withExtendedLifetime((x, y)) {}
  }

  /// dY = factors[g] · scale ⊙ dX, dScale += Σ factors[g] · dX ⊙ y; without factors they are 1.
  static func gradient(
    dX: Tensor, y: Tensor, scale: Tensor?, factors: [Float]?, into dY: Tensor,
    scale dScale: Tensor?, on device: CPUDevice
  ) throws {
    try dX.requireRows(nil, "the gradient of the residual stream")
    let width = dX.shape[1]
    try y.requireRows(like: dX, "a block's output")
    try dY.requireRows(like: dX, "the gradient of a block's output")
    try scale?.requireParameters(width, "a layer scale")
    try dScale?.requireGradient([width], "the gradient of a layer scale")
    let groupRows = try factors.map { try rowsOfGroup(dX, $0) } ?? 1

    device.withFloats(ofOptional: scale) { scale in
      let (from, outputs, into) = (dX.floatBase, y.floatBase, dY.floatBase)
      device.parallelSums(rows: dX.shape[0], width: width, into: [dScale]) { row, sums in
        let start = row * width
        let factor = factors?[row / groupRows] ?? 1
        if factor == 0 {
          (into + start).update(repeating: 0, count: width)
        } else {
          device.kernels.add_scaled_gradient(
            from + start, outputs + start, scale, factor, width, into + start, sums[0])
        }
      }
    }
    withExtendedLifetime((dX, y, dY, dScale)) {}
  }

  /// x += y.
  static func add(_ y: Tensor, to x: Tensor, on device: CPUDevice) throws {
    try x.require(.float32, what: "a sum")
    try y.require(.float32, what: "a summand")
    try y.require(shape: x.shape, "a summand")
    let (from, into) = (y.floatBase, x.floatBase)
    device.parallel(elements: x.count) { range in
      device.kernels.add_scaled(
        from + range.lowerBound, nil, range.count, into + range.lowerBound)
    }
    withExtendedLifetime((x, y)) {}
  }

  private static func rowsOfGroup(_ x: Tensor, _ factors: [Float]) throws -> Int {
    let rows = x.shape[0]
    guard factors.isEmpty ? rows == 0 : rows % factors.count == 0 else {
      throw TensorError.shapeMismatch(
        what: "the residual stream in \(factors.count) groups of rows",
        expected: [factors.count, x.shape[1]], found: x.shape)
    }
    return max(1, rows / max(1, factors.count))
  }
}
