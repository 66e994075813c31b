import CKernels
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// AdamW (arXiv:1711.05101) in the order of PyTorch's, and the norm that clips its gradients.
enum AdamW {
  static func update(
    _ value: Tensor, gradient: Tensor, firstMoment: Tensor, secondMoment: Tensor, step: AdamWStep,
    on device: CPUDevice
  ) throws {
    try require(value, gradient, firstMoment, secondMoment)
    let (values, gradients) = (value.floatBase, gradient.floatBase)
    let (firsts, seconds) = (firstMoment.floatBase, secondMoment.floatBase)
    var constants = ck_adamw(step)
    withUnsafePointer(to: &constants) { constants in
      device.parallel(elements: value.count) { range in
        let first = range.lowerBound
        device.kernels.adamw(
          values + first, gradients + first, firsts + first, seconds + first, range.count,
          constants)
      }
    }
    withExtendedLifetime((value, gradient, firstMoment, secondMoment)) {}
  }

  /// The same where most rows of the gradient are zero.
  static func update(
    _ value: Tensor, gradient: SparseRows, firstMoment: Tensor, secondMoment: Tensor,
    step: AdamWStep, on device: CPUDevice
  ) throws {
    try value.require(shape: gradient.shape, "a parameter with a gradient of some rows")
    try require(value, nil, firstMoment, secondMoment)
    try gradient.rows.require(.float32, what: "a gradient")
    let (values, gradients) = (value.floatBase, gradient.rows.floatBase)
    let (firsts, seconds) = (firstMoment.floatBase, secondMoment.floatBase)
    let (width, slots) = (gradient.shape[1], gradient.slots)
    let zeros = Tensor(zeros: .float32, [width])
    let nothing = zeros.floatBase
    var constants = ck_adamw(step)
    withUnsafePointer(to: &constants) { constants in
      device.parallel(rows: slots.count, cost: width) { row in
        let (first, slot) = (row * width, Int(slots[row]))
        device.kernels.adamw(
          values + first, slot < 0 ? nothing : gradients + slot * width, firsts + first,
          seconds + first, width, constants)
      }
    }
    withExtendedLifetime((value, gradient, firstMoment, secondMoment, zeros)) {}
  }

  private static func require(
    _ value: Tensor, _ gradient: Tensor?, _ firstMoment: Tensor, _ secondMoment: Tensor
  ) throws {
    try value.require(.float32, what: "a parameter")
    for (tensor, what) in [
      (gradient, "a gradient"), (firstMoment, "a first moment"), (secondMoment, "a second moment"),
    ] {
      try tensor?.require(.float32, what: what)
      try tensor?.require(shape: value.shape, what)
    }
  }

  /// Σ x², each 65,536 elements by themselves and their sums in order.
  static func sumOfSquares(_ x: Tensor, on device: CPUDevice) throws -> Double {
    try x.require(.float32, what: "a gradient")
    let base = x.floatBase
    var sums = [Double](repeating: 0, count: (x.count + block - 1) / block)
    sums.withUnsafeMutableBufferPointer { sums in
      nonisolated(unsafe) let sums = sums
      device.pool.parallel(sums.count) { tile, _ in
        let first = tile * block
        sums[tile] = device.kernels.sum_of_squares(base + first, min(block, x.count - first))
      }
    }
    withExtendedLifetime(x) {}
    return sums.reduce(0, +)
  }

  /// The same where most rows are zero: a block that holds none of the others adds nothing.
  static func sumOfSquares(_ x: SparseRows, on device: CPUDevice) throws -> Double {
    try x.rows.require(.float32, what: "a gradient")
    let (width, slots) = (x.shape[1], x.slots)
    let count = slots.count * width
    let base = x.rows.floatBase
    var sums = [Double](repeating: 0, count: (count + block - 1) / block)
    sums.withUnsafeMutableBufferPointer { sums in
      nonisolated(unsafe) let sums = sums
      device.pool.parallel(sums.count) { tile, scratch in
        let elements = tile * block..<min((tile + 1) * block, count)
        let rows = elements.lowerBound / width...(elements.upperBound - 1) / width
        guard rows.contains(where: { slots[$0] >= 0 }) else { return }
        let room = scratch.floats(block)
        room.update(repeating: 0, count: elements.count)
        for row in rows where slots[row] >= 0 {
          let part = (row * width..<(row + 1) * width).clamped(to: elements)
          memcpy(
            room + part.lowerBound - elements.lowerBound,
            base + Int(slots[row]) * width + part.lowerBound - row * width,
            part.count * MemoryLayout<Float>.size)
        }
        sums[tile] = device.kernels.sum_of_squares(room, elements.count)
      }
    }
    withExtendedLifetime(x) {}
    return sums.reduce(0, +)
  }

  /// Elements whose squares are summed by themselves.
  private static let block = 65_536

  /// x ← 0.
  static func clear(_ x: Tensor, on device: CPUDevice) throws {
    try x.require(.float32, what: "a gradient")
    let base = x.floatBase
    device.parallel(elements: x.count) { range in
      memset(base + range.lowerBound, 0, range.count * MemoryLayout<Float>.size)
    }
    withExtendedLifetime(x) {}
  }
}

extension ck_adamw {
  fileprivate init(_ step: AdamWStep) {
    let updates = Double(step.update)
    self.init(
      gradient_scale: Float(step.gradientScale),
      decay: Float(1 - step.learningRate * step.weightDecay),
      one_less_beta1: Float(1 - step.beta1), beta2: Float(step.beta2),
      one_less_beta2: Float(1 - step.beta2),
      root_correction2: Float((1 - pow(step.beta2, updates)).squareRoot()),
      epsilon: Float(step.epsilon),
      step_size: Float(step.learningRate / (1 - pow(step.beta1, updates))))
  }
}
