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
  }

  /// Results between the operations of a layer, made once for all layers of a stage.
  struct Scratch {
    /// [T, D]
    let normalized: Tensor
    let branch: Tensor
    /// [T, Q·H]
    let q: Tensor
    let attention: Tensor
    /// [T, KV·H]
    let k: Tensor
    let v: Tensor
    /// [T, F]
    let gate: Tensor
    let up: Tensor

    init(rows: Int, shape: Shape) {
      normalized = Tensor(uninitialized: .float32, [rows, shape.width])
      branch = Tensor(uninitialized: .float32, [rows, shape.width])
      q = Tensor(uninitialized: .float32, [rows, shape.heads * shape.headSize])
      attention = Tensor(uninitialized: .float32, [rows, shape.heads * shape.headSize])
      k = Tensor(uninitialized: .float32, [rows, shape.keyValueHeads * shape.headSize])
      v = Tensor(uninitialized: .float32, [rows, shape.keyValueHeads * shape.headSize])
      gate = Tensor(uninitialized: .float32, [rows, shape.feedForward])
      up = Tensor(uninitialized: .float32, [rows, shape.feedForward])
    }

    /// Views of rows `range` of each.
    func rows(_ range: Range<Int>) -> Scratch { Scratch(self, range) }

    private init(_ whole: Scratch, _ range: Range<Int>) {
      normalized = whole.normalized.rows(range)
      branch = whole.branch.rows(range)
      q = whole.q.rows(range)
      attention = whole.attention.rows(range)
      k = whole.k.rows(range)
      v = whole.v.rows(range)
      gate = whole.gate.rows(range)
      up = whole.up.rows(range)
    }

    static func floats(perRowOf shape: Shape) -> Int {
      2 * shape.width + 2 * (shape.heads + shape.keyValueHeads) * shape.headSize
        + 2 * shape.feedForward
    }
  }

  /// The angles of a step's rows [T, H/2], and the rows' places in them.
  struct Rotation {
    let cosines: Tensor
    let sines: Tensor
    let places: [Int]
  }

  private let shape: Shape
  private let attentionNorm: Tensor
  private let q: Tensor
  private let k: Tensor
  private let v: Tensor
  private let o: Tensor
  private let feedForwardNorm: Tensor
  private let gate: Tensor
  private let up: Tensor
  private let down: Tensor

  init(
    _ configuration: ModelConfiguration, layer: Int, shape: Shape, weights: inout StageWeights
  ) throws {
    let names = WeightNames.LanguageLayer(configuration, layer)
    self.shape = shape
    attentionNorm = try weights.take(names.inputNormWeight)
    q = try weights.take(names.queryWeight)
    k = try weights.take(names.keyWeight)
    v = try weights.take(names.valueWeight)
    o = try weights.take(names.outputWeight)
    feedForwardNorm = try weights.take(names.postAttentionNormWeight)
    gate = try weights.take(names.gateWeight)
    up = try weights.take(names.upWeight)
    down = try weights.take(names.downWeight)
  }

  /// x [T, D], in place; the rows' keys and values are appended to their sequences' caches.
  func forward(
    _ x: Tensor, rotation: Rotation, spans: [AttentionSpan], scratch: Scratch,
    device: any Device
  ) throws {
    try device.rmsNorm(
      x, weight: attentionNorm, epsilon: shape.epsilon, into: scratch.normalized)
    try linear(scratch.normalized, q, into: scratch.q, on: device)
    try linear(scratch.normalized, k, into: scratch.k, on: device)
    try linear(scratch.normalized, v, into: scratch.v, on: device)
    try device.rotate(
      scratch.q, heads: shape.heads, positions: rotation.places, cosines: rotation.cosines,
      sines: rotation.sines)
    try device.rotate(
      scratch.k, heads: shape.keyValueHeads, positions: rotation.places,
      cosines: rotation.cosines, sines: rotation.sines)
    try device.appendToCache(
      k: scratch.k, v: scratch.v, keyValueHeads: shape.keyValueHeads, spans: spans)
    try device.cachedAttention(
      q: scratch.q, heads: shape.heads, keyValueHeads: shape.keyValueHeads, spans: spans,
      into: scratch.attention)
    try linear(scratch.attention, o, into: scratch.branch, on: device)
    try device.addScaled(scratch.branch, scale: nil, to: x)

    try device.rmsNorm(
      x, weight: feedForwardNorm, epsilon: shape.epsilon, into: scratch.normalized)
    try linear(scratch.normalized, gate, into: scratch.gate, on: device)
    try linear(scratch.normalized, up, into: scratch.up, on: device)
    try device.siluMultiply(gate: scratch.gate, up: scratch.up, into: scratch.gate)
    try linear(scratch.gate, down, into: scratch.branch, on: device)
    try device.addScaled(scratch.branch, scale: nil, to: x)
  }

  /// Rows of text: in which order one is summed depends on the weight alone.
  private func linear(
    _ x: Tensor, _ weight: Tensor, into y: Tensor, on device: any Device
  ) throws {
    try device.linear(x, weight: weight, bias: nil, grouping: .independent, into: y)
  }
}
