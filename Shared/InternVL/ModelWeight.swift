import Kernels
import Tensors

/// A weight as a layer holds it: its elements and, where it is trained, the place to which its
/// gradient is added. Both are views over a ``Parameter``'s, so that layers see every update.
struct ModelWeight: Sendable {
  let value: Tensor
  /// float32, of the same shape; nil: frozen.
  let gradient: Tensor?

  init(_ value: Tensor, gradient: Tensor? = nil) {
    self.value = value
    self.gradient = gradient
  }

  var isTrained: Bool { gradient != nil }

  func rows(_ range: Range<Int>) -> ModelWeight {
    ModelWeight(value.rows(range), gradient: gradient?.rows(range))
  }

  func reshaped(_ shape: [Int]) -> ModelWeight {
    ModelWeight(value.reshaped(shape), gradient: gradient?.reshaped(shape))
  }
}
