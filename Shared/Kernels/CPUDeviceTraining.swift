import Tensors

extension CPUDevice: TrainingDevice {
  public func linearInputGradient(dY: Tensor, weight: Tensor, adding: Bool, into dX: Tensor) throws
  {
    try LinearGradient.input(dY: dY, weight: weight, adding: adding, into: dX, on: self)
  }

  public func linearWeightGradient(
    x: Tensor, dY: Tensor, weight dWeight: Tensor?, bias dBias: Tensor?
  ) throws {
    try LinearGradient.weight(x: x, dY: dY, weight: dWeight, bias: dBias, on: self)
  }

  public func embedGradient(dY: Tensor, ids: [Int32], into dTable: Tensor) throws {
    try Embedding.gradient(dY: dY, ids: ids, into: dTable, on: self)
  }

  public func rmsNormGradient(
    dY: Tensor, x: Tensor, weight: Tensor, epsilon: Float, adding: Bool, into dX: Tensor?,
    weight dWeight: Tensor?
  ) throws {
    try RMSNorm.gradient(
      dY: dY, x: x, weight: weight, epsilon: epsilon, adding: adding, into: dX, weight: dWeight,
      on: self)
  }

  public func layerNormGradient(
    dY: Tensor, x: Tensor, weight: Tensor, epsilon: Float, adding: Bool, into dX: Tensor?,
    weight dWeight: Tensor?, bias dBias: Tensor?
  ) throws {
    try LayerNorm.gradient(
      dY: dY, x: x, weight: weight, epsilon: epsilon, adding: adding, into: dX, weight: dWeight,
      bias: dBias, on: self)
  }

  public func geluGradient(dY: Tensor, x: Tensor, into dX: Tensor) throws {
    try GELU.gradient(dY: dY, x: x, into: dX, on: self)
  }

  public func siluMultiplyGradient(
    dY: Tensor, gate: Tensor, up: Tensor, into dGate: Tensor, up dUp: Tensor
  ) throws {
    try SiLUMultiply.gradient(dY: dY, gate: gate, up: up, into: dGate, up: dUp, on: self)
  }

  public func addScaled(_ y: Tensor, scale: Tensor?, factors: [Float], to x: Tensor) throws {
    try Residual.forward(y, scale: scale, factors: factors, to: x, on: self)
  }

  public func addScaledGradient(
    dX: Tensor, y: Tensor, scale: Tensor?, factors: [Float]?, into dY: Tensor,
    scale dScale: Tensor?
  ) throws {
    try Residual.gradient(
      dX: dX, y: y, scale: scale, factors: factors, into: dY, scale: dScale, on: self)
  }

  public func add(_ y: Tensor, to x: Tensor) throws {
    try Residual.add(y, to: x, on: self)
  }

  public func rotateGradient(
    _ dX: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor
  ) throws {
    try RotaryEmbedding.gradient(
      dX, heads: heads, positions: positions, cosines: cosines, sines: sines, on: self)
  }

  public func bidirectionalAttentionGradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, rowsEach: Int,
    dQ: Tensor, dK: Tensor, dV: Tensor
  ) throws {
    try BidirectionalAttention.gradient(
      dY: dY, q: q, k: k, v: v, y: y, heads: heads, rowsEach: rowsEach, dQ: dQ, dK: dK, dV: dV,
      on: self)
  }

  public func causalAttention(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [AttentionSequence], into y: Tensor
  ) throws {
    try CausalAttention.forward(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, sequences: sequences, into: y,
      on: self)
  }

  public func causalAttentionGradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [AttentionSequence], dQ: Tensor, dK: Tensor, dV: Tensor
  ) throws {
    try CausalAttention.gradient(
      dY: dY, q: q, k: k, v: v, y: y, heads: heads, keyValueHeads: keyValueHeads,
      sequences: sequences, dQ: dQ, dK: dK, dV: dV, on: self)
  }

  public func crossEntropy(
    hidden: Tensor, weight: Tensor, labels: [Int32], scale: Float, dHidden: Tensor?,
    dWeight: Tensor?
  ) throws -> (sum: Double, rows: Int) {
    try CrossEntropy.forwardAndGradient(
      hidden: hidden, weight: weight, labels: labels, scale: scale, dHidden: dHidden,
      dWeight: dWeight, on: self)
  }

  public func softCrossEntropy(
    hidden: Tensor, weight: Tensor, bias: Tensor?, targets: SoftTargets, dHidden: Tensor?,
    dWeight: Tensor?, dBias: Tensor?
  ) throws -> [SoftLoss] {
    try SoftCrossEntropy.forwardAndGradient(
      hidden: hidden, weight: weight, bias: bias, targets: targets, dHidden: dHidden,
      dWeight: dWeight, dBias: dBias, on: self)
  }

  public func dropout(
    _ x: Tensor, probability: Float, random: RandomStream, into y: Tensor
  ) throws {
    try Dropout.apply(x, probability: probability, random: random, into: y, on: self)
  }

  public func adamW(
    _ value: Tensor, gradient: Tensor, firstMoment: Tensor, secondMoment: Tensor, step: AdamWStep
  ) throws {
    try AdamW.update(
      value, gradient: gradient, firstMoment: firstMoment, secondMoment: secondMoment, step: step,
      on: self)
  }

  public func adamW(
    _ value: Tensor, gradient: SparseRows, firstMoment: Tensor, secondMoment: Tensor,
    step: AdamWStep
  ) throws {
    try AdamW.update(
      value, gradient: gradient, firstMoment: firstMoment, secondMoment: secondMoment, step: step,
      on: self)
  }

  public func sumOfSquares(_ x: Tensor) throws -> Double {
    try AdamW.sumOfSquares(x, on: self)
  }

  public func sumOfSquares(_ x: SparseRows) throws -> Double {
    try AdamW.sumOfSquares(x, on: self)
  }

  public func clear(_ x: Tensor) throws {
    try AdamW.clear(x, on: self)
  }
}
