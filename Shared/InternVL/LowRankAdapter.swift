import Kernels
import Tensors

/// What low-rank adaptation adds to a product (arXiv:2106.09685, as in PEFT's lora/layer.py):
/// y += (alpha / r) · B · A · dropout(x).
///
/// Legend: T rows, K input width, N output width, r rank.
struct LowRankAdapter: Sendable {
  /// [r, K], random at the start.
  let a: ModelWeight
  /// [N, r], zero at the start.
  let b: ModelWeight
  /// alpha / r
  let scale: Float
  let dropout: Float
  let names: AdapterNames
  /// What the dropout of this adapter draws by.
  let place: UInt64

  func rows(_ rows: Range<Int>) -> LowRankAdapter {
    LowRankAdapter(
      a: a, b: b.rows(rows), scale: scale, dropout: dropout, names: names, place: place)
  }

  /// y [T, N] += (alpha / r) · B · A · dropout(x [T, K]).
  func forward(
    _ x: Tensor, addingTo y: Tensor, on device: any Device,
    _ pass: TrainingPass?
  ) throws {
    let low = try lowered(dropped(x, pass), on: device, pass)
    let branch = TrainingPass.tensor(y.shape, pass)
    try device.linear(low, weight: b.value, bias: nil, into: branch)
    try device.addScaled(branch, scale: nil, to: y)
  }

  /// dX [T, K] += the gradient by the adapter's way; nil: not wanted.
  func backward(
    dY: Tensor, x: Tensor, addingTo dX: Tensor?, _ pass: TrainingPass
  ) throws {
    let input = try dropped(x, pass)
    let low = try lowered(input, on: pass.device, pass)
    try pass.addProduct(x: low, dY: dY, weight: b.gradient, bias: nil)
    let dLow = pass.tensor(low.shape)
    try pass.device.linearInputGradient(dY: dY, weight: b.value, adding: false, into: dLow)
    scaleElements(of: dLow)
    try pass.addProduct(x: input, dY: dLow, weight: a.gradient, bias: nil)
    guard let dX else { return }
    guard dropout > 0 else {
      return try pass.device.linearInputGradient(
        dY: dLow, weight: a.value, adding: true, into: dX)
    }
    let dInput = pass.tensor(x.shape)
    try pass.device.linearInputGradient(dY: dLow, weight: a.value, adding: false, into: dInput)
    try pass.dropout(dInput, probability: dropout, place: place, into: dInput)
    try pass.device.add(dInput, to: dX)
  }

  private func dropped(_ x: Tensor, _ pass: TrainingPass?) throws -> Tensor {
    guard let pass, dropout > 0 else { return x }
    let dropped = pass.tensor(x.shape)
    try pass.dropout(x, probability: dropout, place: place, into: dropped)
    return dropped
  }

  /// (alpha / r) · A · x: [T, r].
  private func lowered(
    _ x: Tensor, on device: any Device, _ pass: TrainingPass?
  ) throws -> Tensor {
    let low = TrainingPass.tensor([x.shape[0], a.value.shape[0]], pass)
    try device.linear(x, weight: a.value, bias: nil, into: low)
    scaleElements(of: low)
    return low
  }

  private func scaleElements(of x: Tensor) {
    x.withElements(of: Float.self) { for index in $0.indices { $0[index] *= scale } }
  }
}
