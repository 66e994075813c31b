import Checkpoint
import Kernels
import Tensors

/// One block of the language model: LlamaDecoderLayer of transformers 4.37.2.
///
/// x ← x + o(attention(rotate(q(n)), rotate(k(n)), v(n))), n = norm(x);
/// x ← x + down(silu(gate(m)) ⊙ up(m)), m = norm(x).
///
/// Legend: T rows of a step, D model width, Q query heads, KV key-value heads, H head size,
/// F width of the feed-forward part.
struct DecoderLayer: Sendable {
  /// Dimensions that all layers share.
  struct Shape: Sendable {
    let width: Int
    let heads: Int
    let keyValueHeads: Int
    let headSize: Int
    let feedForward: Int
    let epsilon: Float

    var queryWidth: Int { heads * headSize }
    var keyValueWidth: Int { keyValueHeads * headSize }
  }

  /// The angles of a step's rows [T, H/2], and the rows' places in them.
  struct Rotation {
    let cosines: Tensor
    let sines: Tensor
    let places: [Int]
  }

  /// Where the keys and values come from that a step's rows look at.
  enum Attention {
    /// The rows' are appended to their sequences' caches first.
    case cached([AttentionSpan])
    /// Training: whole sequences.
    case whole([AttentionSequence], any TrainingDevice)
  }

  private let shape: Shape
  private let attentionNorm: Normalization
  private let q: LinearLayer
  private let k: LinearLayer
  private let v: LinearLayer
  private let o: LinearLayer
  private let feedForwardNorm: Normalization
  private let gate: LinearLayer
  private let up: LinearLayer
  private let down: LinearLayer

  init(
    _ configuration: ModelConfiguration, layer: Int, shape: Shape, weights: inout StageWeights
  ) throws {
    let names = WeightNames.LanguageLayer(configuration, layer)
    self.shape = shape
    attentionNorm = try Normalization(
      names.inputNormWeight, epsilon: shape.epsilon, weights: &weights)
    q = try weights.takeLinear(names.queryWeight)
    k = try weights.takeLinear(names.keyWeight)
    v = try weights.takeLinear(names.valueWeight)
    o = try weights.takeLinear(names.outputWeight)
    feedForwardNorm = try Normalization(
      names.postAttentionNormWeight, epsilon: shape.epsilon, weights: &weights)
    gate = try weights.takeLinear(names.gateWeight)
    up = try weights.takeLinear(names.upWeight)
    down = try weights.takeLinear(names.downWeight)
  }

  /// x [T, D], in place.
  ///
  /// - Parameters:
  ///   - pass: nil outside training.
  ///   - givesOutput: false where all is computed again but the output, which no backward pass
  ///     reads: x is worthless then.
  func forward(
    _ x: Tensor, rotation: Rotation, attention: Attention, _ a: DecoderActivations,
    on device: any Device, _ pass: TrainingPass? = nil, givesOutput: Bool = true
  ) throws {
    a.input?.copyElements(from: x)
    try attentionNorm.forward(x, into: a.normalized1, on: device)
    try LinearLayer.forward(
      a.normalized1, (q, into: a.q), (k, into: a.k), (v, into: a.v), on: device, pass)
    try device.rotate(
      a.q, heads: shape.heads, positions: rotation.places, cosines: rotation.cosines,
      sines: rotation.sines)
    try device.rotate(
      a.k, heads: shape.keyValueHeads, positions: rotation.places, cosines: rotation.cosines,
      sines: rotation.sines)
    switch attention {
    case .cached(let spans):
      try device.appendToCache(k: a.k, v: a.v, keyValueHeads: shape.keyValueHeads, spans: spans)
      try device.cachedAttention(
        q: a.q, heads: shape.heads, keyValueHeads: shape.keyValueHeads, spans: spans,
        into: a.attention)
    case .whole(let sequences, let device):
      try device.causalAttention(
        q: a.q, k: a.k, v: a.v, heads: shape.heads, keyValueHeads: shape.keyValueHeads,
        sequences: sequences, into: a.attention)
    }
    try o.forward(a.attention, addingTo: x, on: device, pass)

    a.middle?.copyElements(from: x)
    try feedForwardNorm.forward(x, into: a.normalized2, on: device)
    try LinearLayer.forward(
      a.normalized2, (gate, into: a.gate), (up, into: a.up), on: device, pass)
    try device.siluMultiply(gate: a.gate, up: a.up, into: a.activated)
    guard givesOutput else { return }
    try down.forward(a.activated, addingTo: x, on: device, pass)
  }

  /// Computes again what ``DecoderActivations/thin()`` let go.
  func recompute(_ a: DecoderActivations, on device: any Device) throws {
    guard let input = a.input, let middle = a.middle else { preconditionFailure("not kept") }
    try attentionNorm.forward(input, into: a.normalized1, on: device)
    try feedForwardNorm.forward(middle, into: a.normalized2, on: device)
    try device.siluMultiply(gate: a.gate, up: a.up, into: a.activated)
  }

  /// dX [T, D]: the gradient of the output becomes that of the input.
  ///
  /// - Parameters:
  ///   - a: All distinct, as the forward pass or ``recompute(_:on:)`` left it.
  ///   - wantsInput: false where nothing in front is trained; dX is worthless then.
  func backward(
    dX: Tensor, rotation: Rotation, sequences: [AttentionSequence], _ a: DecoderActivations,
    _ pass: TrainingPass, wantsInput: Bool
  ) throws {
    guard let input = a.input, let middle = a.middle else { preconditionFailure("not kept") }
    let device = pass.device
    let (dGate, dUp) = (pass.tensor(a.gate.shape), pass.tensor(a.up.shape))
    try down.backward(dY: pass.keepable(dX), x: a.activated, into: dGate, pass)
    try device.siluMultiplyGradient(dY: dGate, gate: a.gate, up: a.up, into: dGate, up: dUp)
    let dNormalized = pass.tensor(dX.shape)
    try gate.backward(dY: dGate, x: a.normalized2, into: dNormalized, pass)
    try up.backward(dY: dUp, x: a.normalized2, adding: true, into: dNormalized, pass)
    try feedForwardNorm.backward(
      dY: dNormalized, x: middle, adding: true, into: dX, on: device)

    let isTrainedBefore = attentionNorm.isTrained || [q, k, v].contains { $0.isTrained }
    let dAttention = wantsInput || isTrainedBefore ? pass.tensor(a.attention.shape) : nil
    try o.backward(dY: pass.keepable(dX), x: a.attention, into: dAttention, pass)
    guard let dAttention else { return }
    let (dQ, dK, dV) = (pass.tensor(a.q.shape), pass.tensor(a.k.shape), pass.tensor(a.v.shape))
    try device.causalAttentionGradient(
      dY: dAttention, q: a.q, k: a.k, v: a.v, y: a.attention, heads: shape.heads,
      keyValueHeads: shape.keyValueHeads, sequences: sequences, dQ: dQ, dK: dK, dV: dV)
    try device.rotateGradient(
      dQ, heads: shape.heads, positions: rotation.places, cosines: rotation.cosines,
      sines: rotation.sines)
    try device.rotateGradient(
      dK, heads: shape.keyValueHeads, positions: rotation.places, cosines: rotation.cosines,
      sines: rotation.sines)
    let wanted = wantsInput || attentionNorm.isTrained ? dNormalized : nil
    try q.backward(dY: dQ, x: a.normalized1, into: wanted, pass)
    try k.backward(dY: dK, x: a.normalized1, adding: true, into: wanted, pass)
    try v.backward(dY: dV, x: a.normalized1, adding: true, into: wanted, pass)
    guard let wanted else { return }
    try attentionNorm.backward(dY: wanted, x: input, adding: true, into: dX, on: device)
  }
}
