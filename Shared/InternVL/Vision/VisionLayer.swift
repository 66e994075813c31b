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
/// Legend: n tiles, R rows of a tile, T = n·R, C channels, F width of the feed-forward part.
struct VisionLayer: Sendable {
  private let heads: Int
  private let rowsEach: Int
  private let norm1: Normalization
  private let q: LinearLayer
  private let k: LinearLayer
  private let v: LinearLayer
  private let qNorm: Normalization?
  private let kNorm: Normalization?
  private let projection: LinearLayer
  private let scale1: ModelWeight
  private let norm2: Normalization
  private let fc1: LinearLayer
  private let fc2: LinearLayer
  private let scale2: ModelWeight

  init(_ configuration: ModelConfiguration, layer: Int, weights: inout StageWeights) throws {
    let vision = configuration.vision
    let names = WeightNames.VisionLayer(configuration, layer)
    heads = vision.headCount
    rowsEach = 1 + configuration.gridSize * configuration.gridSize
    norm1 = try Normalization(
      names.norm1Weight, bias: names.norm1Bias, epsilon: vision.epsilon, weights: &weights)
    let qkv = try weights.takeLinear(names.qkvWeight, bias: names.qkvBias, parts: 3)
    (q, k, v) = (qkv[0], qkv[1], qkv[2])
    // The reference makes these two RMSNorm whatever `norm_type` says.
    qNorm = try names.queryNormWeight.map {
      try Normalization($0, epsilon: vision.epsilon, weights: &weights)
    }
    kNorm = try names.keyNormWeight.map {
      try Normalization($0, epsilon: vision.epsilon, weights: &weights)
    }
    projection = try weights.takeLinear(names.projectionWeight, bias: names.projectionBias)
    scale1 = try weights.take(names.layerScale1)
    norm2 = try Normalization(
      names.norm2Weight, bias: names.norm2Bias, epsilon: vision.epsilon, weights: &weights)
    fc1 = try weights.takeLinear(names.fc1Weight, bias: names.fc1Bias)
    fc2 = try weights.takeLinear(names.fc2Weight, bias: names.fc2Bias)
    scale2 = try weights.take(names.layerScale2)
  }

  /// x [T, C], in place.
  ///
  /// - Parameters:
  ///   - pass: nil outside training.
  ///   - dropPath: For each branch a factor for each tile; nil: 1.
  ///   - givesOutput: false where all is computed again but the second branch, which is at hand:
  ///     x is worthless then.
  func forward(
    _ x: Tensor, _ a: VisionActivations, on device: any Device, _ pass: TrainingPass? = nil,
    dropPath: BranchFactors? = nil, givesOutput: Bool = true
  ) throws {
    a.input?.copyElements(from: x)
    try norm1.forward(x, into: a.normalized1, on: device)
    try LinearLayer.forward(
      a.normalized1, (q, into: a.rawQ), (k, into: a.rawK), (v, into: a.v), on: device, pass)
    try normalizeHeads(a, on: device)
    try device.bidirectionalAttention(
      q: a.q, k: a.k, v: a.v, heads: heads, rowsEach: rowsEach, into: a.attention)
    try add(
      projection, of: a.attention, scale: scale1, factors: dropPath?.attention, a.branch1, to: x,
      on: device, pass)

    a.middle?.copyElements(from: x)
    try norm2.forward(x, into: a.normalized2, on: device)
    if a.activated.baseAddress == a.wide.baseAddress {
      try fc1.forwardGELU(a.normalized2, into: a.activated, on: device, pass)
    } else {
      try fc1.forward(a.normalized2, into: a.wide, on: device, pass)
      try activate(a, on: device)
    }
    guard givesOutput else { return }
    try add(
      fc2, of: a.activated, scale: scale2, factors: dropPath?.feedForward, a.branch2, to: x,
      on: device, pass)
  }

  /// Computes again what ``VisionActivations/thin()`` let go.
  func recompute(_ a: VisionActivations, on device: any Device) throws {
    guard let input = a.input, let middle = a.middle else { preconditionFailure("not kept") }
    try norm1.forward(input, into: a.normalized1, on: device)
    try normalizeHeads(a, on: device)
    try norm2.forward(middle, into: a.normalized2, on: device)
    try activate(a, on: device)
  }

  /// dX [T, C]: the gradient of the output becomes that of the input.
  ///
  /// - Parameters:
  ///   - a: All distinct, as the forward pass or ``recompute(_:on:)`` left it.
  ///   - wantsInput: false where nothing in front is trained; dX is worthless then.
  func backward(
    dX: Tensor, _ a: VisionActivations, _ pass: TrainingPass, dropPath: BranchFactors?,
    wantsInput: Bool
  ) throws {
    guard let input = a.input, let middle = a.middle, let branch1 = a.branch1,
      let branch2 = a.branch2
    else { preconditionFailure("not kept") }
    let device = pass.device
    let dBranch2 = pass.tensor(dX.shape)
    try device.addScaledGradient(
      dX: dX, y: branch2, scale: scale2.value, factors: dropPath?.feedForward, into: dBranch2,
      scale: scale2.gradient)
    let dWide = pass.tensor(a.wide.shape)
    try fc2.backward(dY: dBranch2, x: a.activated, into: dWide, pass)
    try device.geluGradient(dY: dWide, x: a.wide, into: dWide)
    let dNormalized = pass.tensor(dX.shape)
    try fc1.backward(dY: dWide, x: a.normalized2, into: dNormalized, pass)
    try norm2.backward(dY: dNormalized, x: middle, adding: true, into: dX, on: device)

    let dBranch1 = pass.tensor(dX.shape)
    try device.addScaledGradient(
      dX: dX, y: branch1, scale: scale1.value, factors: dropPath?.attention, into: dBranch1,
      scale: scale1.gradient)
    guard wantsInput || isTrainedBeforeProjection else {
      return try projection.backward(
        dY: dBranch1, x: a.attention, into: nil, pass)
    }
    try projection.backward(
      dY: dBranch1, x: a.attention, into: dNormalized, pass)
    let (dQ, dK, dV) = (pass.tensor(dX.shape), pass.tensor(dX.shape), pass.tensor(dX.shape))
    try device.bidirectionalAttentionGradient(
      dY: dNormalized, q: a.q, k: a.k, v: a.v, y: a.attention, heads: heads, rowsEach: rowsEach,
      dQ: dQ, dK: dK, dV: dV)
    try qNorm?.backward(dY: dQ, x: a.rawQ, into: dQ, on: device)
    try kNorm?.backward(dY: dK, x: a.rawK, into: dK, on: device)
    let wanted = wantsInput || norm1.isTrained ? dNormalized : nil
    try q.backward(dY: dQ, x: a.normalized1, into: wanted, pass)
    try k.backward(dY: dK, x: a.normalized1, adding: true, into: wanted, pass)
    try v.backward(dY: dV, x: a.normalized1, adding: true, into: wanted, pass)
    guard let wanted else { return }
    try norm1.backward(dY: wanted, x: input, adding: true, into: dX, on: device)
  }

  private var isTrainedBeforeProjection: Bool {
    norm1.isTrained || q.isTrained || qNorm?.isTrained == true || kNorm?.isTrained == true
  }

  private func normalizeHeads(_ a: VisionActivations, on device: any Device) throws {
    if let qNorm { try qNorm.forward(a.rawQ, into: a.q, on: device) }
    if let kNorm { try kNorm.forward(a.rawK, into: a.k, on: device) }
  }

  private func activate(_ a: VisionActivations, on device: any Device) throws {
    a.activated.copyElements(from: a.wide)
    try device.gelu(a.activated)
  }

  /// x ← x + factors ⊙ scale ⊙ layer(input).
  ///
  /// - Parameter branch: Where to keep what the layer gives; nil: nobody wants it.
  private func add(
    _ layer: LinearLayer, of input: Tensor, scale: ModelWeight, factors: [Float]?,
    _ branch: Tensor?, to x: Tensor, on device: any Device, _ pass: TrainingPass?
  ) throws {
    guard branch != nil || factors != nil else {
      return try layer.forward(input, scale: scale.value, addingTo: x, on: device, pass)
    }
    let branch = branch ?? TrainingPass.tensor(x.shape, pass)
    try layer.forward(input, into: branch, on: device, pass)
    if let pass, let factors {
      try pass.device.addScaled(branch, scale: scale.value, factors: factors, to: x)
    } else {
      try device.addScaled(branch, scale: scale.value, to: x)
    }
  }
}
