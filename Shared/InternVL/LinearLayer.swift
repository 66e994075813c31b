import Checkpoint
import Kernels
import Tensors

/// y = x · weightᵀ + bias, and what an adapter beside the product adds.
///
/// Legend: T rows, K input width, N output width.
struct LinearLayer: Sendable {
  /// [N, K]
  let weight: MatrixWeight
  /// [N]
  let bias: ModelWeight?
  let adapter: LowRankAdapter?

  init(_ weight: MatrixWeight, bias: ModelWeight? = nil, adapter: LowRankAdapter? = nil) {
    self.weight = weight
    self.bias = bias
    self.adapter = adapter
  }

  var isTrained: Bool {
    weight.isTrained || bias?.isTrained == true || adapter != nil
  }

  /// x [T, K] → y [T, N].
  ///
  /// - Parameter pass: nil outside training, where adapters drop nothing.
  func forward(
    _ x: Tensor, into y: Tensor, on device: any Device,
    _ pass: TrainingPass? = nil
  ) throws {
    try device.linear(x, [product(into: y)])
    try adapter?.forward(x, addingTo: y, on: device, pass)
  }

  /// Several layers' outputs of one input x [T, K], each [T, N].
  static func forward(
    _ x: Tensor, _ layers: (LinearLayer, into: Tensor)..., on device: any Device,
    _ pass: TrainingPass? = nil
  ) throws {
    try device.linear(x, layers.map { layer, y in layer.product(into: y) })
    for (layer, y) in layers { try layer.adapter?.forward(x, addingTo: y, on: device, pass) }
  }

  /// y [T, N] ← gelu of the output.
  func forwardGELU(
    _ x: Tensor, into y: Tensor, on device: any Device, _ pass: TrainingPass? = nil
  ) throws {
    guard let adapter else { return try device.linear(x, [product(.gelu, into: y)]) }
    try device.linear(x, [product(into: y)])
    try adapter.forward(x, addingTo: y, on: device, pass)
    try device.gelu(y)
  }

  /// y [T, N] ← y + scale [N] ⊙ output, or y + output.
  func forward(
    _ x: Tensor, scale: Tensor? = nil, addingTo y: Tensor, on device: any Device,
    _ pass: TrainingPass? = nil
  ) throws {
    guard let adapter else { return try device.linear(x, [product(.add(scale: scale), into: y)]) }
    let branch = TrainingPass.tensor(y.shape, pass)
    try device.linear(x, [product(into: branch)])
    try adapter.forward(x, addingTo: branch, on: device, pass)
    try device.addScaled(branch, scale: scale, to: y)
  }

  private func product(_ finish: LinearProduct.Finish = .store, into y: Tensor) -> LinearProduct {
    LinearProduct(weight.value, bias: bias?.value, finish: finish, into: y)
  }

  /// dY [T, N] → dX [T, K], written or added; nil: not wanted. The weights' gradients go to the
  /// pass, which may keep x and dY until later: neither may be written to any more.
  func backward(
    dY: Tensor, x: Tensor, adding: Bool = false, into dX: Tensor?,
    _ pass: TrainingPass
  ) throws {
    if let dX {
      try pass.device.linearInputGradient(dY: dY, weight: weight.rows, adding: adding, into: dX)
    }
    try pass.addProduct(x: x, dY: dY, weight: weight.gradient, bias: bias?.gradient)
    try adapter?.backward(dY: dY, x: x, addingTo: dX, pass)
  }
}
