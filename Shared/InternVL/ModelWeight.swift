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

/// A matrix [N, K] as a layer holds it: packed for kernels where it only serves, row by row with
/// a place for its gradient where it is trained.
struct MatrixWeight: Sendable {
  let value: LinearWeight
  /// float32 [N, K]; nil: frozen, or see ``rowGradient``.
  let gradient: Tensor?
  /// The gradient of a table that is trained and no product's weight.
  let rowGradient: RowGradient?

  init(_ value: LinearWeight) {
    self.value = value
    (gradient, rowGradient) = (nil, nil)
  }

  init(_ weight: ModelWeight) {
    value = .rows(weight.value)
    gradient = weight.gradient
    rowGradient = nil
  }

  init(table: Tensor, gradient: RowGradient) {
    value = .rows(table)
    self.gradient = nil
    rowGradient = gradient
  }

  var isTrained: Bool { gradient != nil || rowGradient != nil }

  /// N.
  var outputs: Int { value.shape[0] }
  /// K.
  var depth: Int { value.shape[1] }

  var isPacked: Bool {
    if case .panels = value { true } else { false }
  }

  /// Row by row, which slices that train hold all their matrices.
  var rows: Tensor {
    guard case .rows(let rows) = value else { preconditionFailure("packed weights in training") }
    return rows
  }
}
