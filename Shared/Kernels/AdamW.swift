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
    try value.require(.float32, what: "a parameter")
    for (tensor, what) in [
      (gradient, "a gradient"), (firstMoment, "a first moment"), (secondMoment, "a second moment"),
    ] {
      try tensor.require(.float32, what: what)
      try tensor.require(shape: value.shape, what)
    }
    let updates = Double(step.update)
    var constants = ck_adamw(
      gradient_scale: Float(step.gradientScale),
      decay: Float(1 - step.learningRate * step.weightDecay),
      one_less_beta1: Float(1 - step.beta1), beta2: Float(step.beta2),
      one_less_beta2: Float(1 - step.beta2),
      root_correction2: Float((1 - pow(step.beta2, updates)).squareRoot()),
      epsilon: Float(step.epsilon),
      step_size: Float(step.learningRate / (1 - pow(step.beta1, updates))))
    let (values, gradients) = (value.floatBase, gradient.floatBase)
    let (firsts, seconds) = (firstMoment.floatBase, secondMoment.floatBase)
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

  /// Σ x², each 65,536 elements by themselves and their sums in order.
  static func sumOfSquares(_ x: Tensor, on device: CPUDevice) throws -> Double {
    try x.require(.float32, what: "a gradient")
    let block = 65_536
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
