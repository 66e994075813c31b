import Checkpoint
import Kernels
import Tensors

/// y = x · weightᵀ + bias, and what an adapter beside the product adds.
///
/// Legend: T rows, K input width, N output width.
struct LinearLayer: Sendable {
  /// [N, K]
  let weight: ModelWeight
  /// [N]
  let bias: ModelWeight?
  let adapter: LowRankAdapter?

  init(_ weight: ModelWeight, bias: ModelWeight? = nil, adapter: LowRankAdapter? = nil) {
    self.weight = weight
    self.bias = bias
    self.adapter = adapter
  }

  /// The part of the output in `rows` of the weight.
  func rows(_ rows: Range<Int>) -> LinearLayer {
    LinearLayer(weight.rows(rows), bias: bias?.rows(rows), adapter: adapter?.rows(rows))
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
    try device.linear(
      x, weight: weight.value, bias: bias?.value, into: y)
    try adapter?.forward(x, addingTo: y, on: device, pass)
  }

  /// dY [T, N] → dX [T, K], written or added; nil: not wanted. The weights' gradients go to the
  /// pass, which may keep x and dY until later: neither may be written to any more.
  func backward(
    dY: Tensor, x: Tensor, adding: Bool = false, into dX: Tensor?,
    _ pass: TrainingPass
  ) throws {
    if let dX {
      try pass.device.linearInputGradient(dY: dY, weight: weight.value, adding: adding, into: dX)
    }
    try pass.addProduct(x: x, dY: dY, weight: weight.gradient, bias: bias?.gradient)
    try adapter?.backward(dY: dY, x: x, addingTo: dX, pass)
  }
}
