import Checkpoint
import Kernels
import Tensors

/// One block of the vision encoder: InternVisionEncoderLayer of the reference's
/// modeling_intern_vit.py.
///
/// x ← x + ls1 ⊙ proj(attention(norm_q(q(n)), norm_k(k(n)), v(n))), n = norm1(x);
/// x ← x + ls2 ⊙ fc2(gelu(fc1(norm2(x)))).
///
/// Queries and keys are normalized over the whole hidden vector, before it is cut into heads.
///
/// Legend: T rows of a tile, C channels, F width of the feed-forward part.
struct VisionLayer: Sendable {
  /// Results between the operations of a layer, made once for all layers of a stage.
  struct Scratch {
    /// [T, C]
    let normalized: Tensor
    let q: Tensor
    let k: Tensor
    let v: Tensor
    /// [T, F]
    let wide: Tensor

    init(rows: Int, width: Int, feedForward: Int) {
      normalized = Tensor(uninitialized: .float32, [rows, width])
      q = Tensor(uninitialized: .float32, [rows, width])
      k = Tensor(uninitialized: .float32, [rows, width])
      v = Tensor(uninitialized: .float32, [rows, width])
      wide = Tensor(uninitialized: .float32, [rows, feedForward])
    }

    static func byteCount(rows: Int, width: Int, feedForward: Int) -> Int {
      rows * (4 * width + feedForward) * ScalarType.float32.byteCount
    }
  }

  private struct Linear: Sendable {
    private let weight: Tensor
    private let bias: Tensor?

    init(_ weight: Weight, bias: Weight?, weights: inout StageWeights) throws {
      self.weight = try weights.take(weight)
      self.bias = try weights.take(bias)
    }

    private init(weight: Tensor, bias: Tensor?) {
      self.weight = weight
      self.bias = bias
    }

    /// The part of the output in `rows` of the weight.
    func rows(_ rows: Range<Int>) -> Linear {
      Linear(weight: weight.rows(rows), bias: bias?.rows(rows))
    }

    func apply(_ x: Tensor, into y: Tensor, on device: any Device) throws {
      try device.linear(x, weight: weight, bias: bias, grouping: .together, into: y)
    }
  }

  private let heads: Int
  private let norm1: Normalization
  private let q: Linear
  private let k: Linear
  private let v: Linear
  private let qNorm: Normalization?
  private let kNorm: Normalization?
  private let projection: Linear
  private let scale1: Tensor
  private let norm2: Normalization
  private let fc1: Linear
  private let fc2: Linear
  private let scale2: Tensor

  init(_ configuration: ModelConfiguration, layer: Int, weights: inout StageWeights) throws {
    let vision = configuration.vision
    let names = WeightNames.VisionLayer(configuration, layer)
    heads = vision.headCount
    norm1 = try Normalization(
      names.norm1Weight, bias: names.norm1Bias, epsilon: vision.epsilon, weights: &weights)
    let qkv = try Linear(names.qkvWeight, bias: names.qkvBias, weights: &weights)
    q = qkv.rows(0..<vision.hiddenSize)
    k = qkv.rows(vision.hiddenSize..<2 * vision.hiddenSize)
    v = qkv.rows(2 * vision.hiddenSize..<3 * vision.hiddenSize)
    // The reference makes these two RMSNorm whatever `norm_type` says.
    qNorm = try names.queryNormWeight.map {
      try Normalization($0, epsilon: vision.epsilon, weights: &weights)
    }
    kNorm = try names.keyNormWeight.map {
      try Normalization($0, epsilon: vision.epsilon, weights: &weights)
    }
    projection = try Linear(
      names.projectionWeight, bias: names.projectionBias, weights: &weights)
    scale1 = try weights.take(names.layerScale1)
    norm2 = try Normalization(
      names.norm2Weight, bias: names.norm2Bias, epsilon: vision.epsilon, weights: &weights)
    fc1 = try Linear(names.fc1Weight, bias: names.fc1Bias, weights: &weights)
    fc2 = try Linear(names.fc2Weight, bias: names.fc2Bias, weights: &weights)
    scale2 = try weights.take(names.layerScale2)
  }

  /// x [T, C], in place.
  func forward(_ x: Tensor, scratch: Scratch, device: any Device) throws {
    try norm1.apply(x, into: scratch.normalized, on: device)
    try q.apply(scratch.normalized, into: scratch.q, on: device)
    try k.apply(scratch.normalized, into: scratch.k, on: device)
    try v.apply(scratch.normalized, into: scratch.v, on: device)
    try qNorm?.apply(scratch.q, into: scratch.q, on: device)
    try kNorm?.apply(scratch.k, into: scratch.k, on: device)
    try device.bidirectionalAttention(
      q: scratch.q, k: scratch.k, v: scratch.v, heads: heads, into: scratch.normalized)
    try projection.apply(scratch.normalized, into: scratch.q, on: device)
    try device.addScaled(scratch.q, scale: scale1, to: x)

    try norm2.apply(x, into: scratch.normalized, on: device)
    try fc1.apply(scratch.normalized, into: scratch.wide, on: device)
    try device.gelu(scratch.wide)
    try fc2.apply(scratch.wide, into: scratch.q, on: device)
    try device.addScaled(scratch.q, scale: scale2, to: x)
  }
}
