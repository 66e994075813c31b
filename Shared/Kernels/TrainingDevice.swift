import Tensors

/// Numbers of one AdamW update (arXiv:1711.05101), the same for all elements of a parameter.
public struct AdamWStep: Sendable, Equatable {
  public var learningRate: Double
  public var beta1: Double
  public var beta2: Double
  public var epsilon: Double
  public var weightDecay: Double
  /// Updates made, this one included: sets the bias corrections 1 − betaᵗ.
  public var update: Int
  /// Every gradient is multiplied by this first: clipping.
  public var gradientScale: Double

  public init(
    learningRate: Double, beta1: Double, beta2: Double, epsilon: Double, weightDecay: Double,
    update: Int, gradientScale: Double
  ) {
    self.learningRate = learningRate
    self.beta1 = beta1
    self.beta2 = beta2
    self.epsilon = epsilon
    self.weightDecay = weightDecay
    self.update = update
    self.gradientScale = gradientScale
  }
}

/// Where random numbers come from: Philox4x32-10 keyed by `seed`, with `stream` in the upper half
/// of the counter and the element's number in the lower, so that they can be drawn again.
public struct RandomStream: Sendable, Hashable {
  public var seed: UInt64
  public var stream: UInt64

  public init(seed: UInt64, stream: UInt64) {
    self.seed = seed
    self.stream = stream
  }
}

/// A device that also computes gradients.
///
/// Results depend on the shapes of a call and not on the number of threads. Gradients of
/// parameters are added to what the tensor holds; gradients of activations are written, or added
/// where a function takes `adding`. All gradients are float32; a weight may be bfloat16 when it
/// is frozen. A nil gradient is not wanted and costs nothing.
///
/// Legend: as for ``Device``; dX is the gradient of the loss by X.
public protocol TrainingDevice: Device {
  /// dX [T, K] = dY [T, N] · weight [N, K].
  func linearInputGradient(dY: Tensor, weight: Tensor, adding: Bool, into dX: Tensor) throws

  /// dWeight [N, K] += dY [T, N]ᵀ · x [T, K]; dBias [N] += the sum of the rows of dY.
  func linearWeightGradient(x: Tensor, dY: Tensor, weight dWeight: Tensor?, bias dBias: Tensor?)
    throws

  /// dTable [V, D]: row `ids[t]` += dY [T, D] row t, in order of t; a negative id is passed over.
  func embedGradient(dY: Tensor, ids: [Int32], into dTable: Tensor) throws

  /// Of y = rmsNorm(x): dX [T, D], and dWeight [D]. dX may be dY.
  func rmsNormGradient(
    dY: Tensor, x: Tensor, weight: Tensor, epsilon: Float, adding: Bool, into dX: Tensor?,
    weight dWeight: Tensor?) throws

  /// Of y = layerNorm(x): dX [T, D], dWeight and dBias [D]. dX may be dY.
  func layerNormGradient(
    dY: Tensor, x: Tensor, weight: Tensor, epsilon: Float, adding: Bool, into dX: Tensor?,
    weight dWeight: Tensor?, bias dBias: Tensor?) throws

  /// dX = dY · GELU′(x), x the input; dX may be dY.
  func geluGradient(dY: Tensor, x: Tensor, into dX: Tensor) throws

  /// Of y = silu(gate) ⊙ up. dGate may be dY.
  func siluMultiplyGradient(
    dY: Tensor, gate: Tensor, up: Tensor, into dGate: Tensor, up dUp: Tensor) throws

  /// x [G·R, D] ← x + factors[g] · scale ⊙ y: the residual connection with drop path, a factor for
  /// each group of R rows. A factor of 1 gives the same bits as ``Device/addScaled(_:scale:to:)``.
  func addScaled(_ y: Tensor, scale: Tensor?, factors: [Float], to x: Tensor) throws

  /// Of the above: dY = factors[g] · scale ⊙ dX; dScale [D] += Σ factors[g] · dX ⊙ y. (The
  /// gradient of x itself is dX unchanged.) dY must not overlap dX.
  func addScaledGradient(
    dX: Tensor, y: Tensor, scale: Tensor?, factors: [Float]?, into dY: Tensor,
    scale dScale: Tensor?) throws

  /// x += y, element by element; same shapes.
  func add(_ y: Tensor, to x: Tensor) throws

  /// Turns the gradient of ``Device/rotate(_:heads:positions:cosines:sines:)``'s result into that
  /// of its input, in place: the inverse rotation.
  func rotateGradient(
    _ dX: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor) throws

  /// Of ``Device/bidirectionalAttention(q:k:v:heads:rowsEach:into:)``, y its result.
  func bidirectionalAttentionGradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, rowsEach: Int,
    dQ: Tensor, dK: Tensor, dV: Tensor) throws

  /// Causal attention of whole sequences, the same bits as ``Device/cachedAttention``.
  /// q, y [T, Q·H]; k, v [T, KV·H]; a row sees the rows of its own sequence up to itself, but none
  /// of another turn. Rows of no sequence are zero in y.
  func causalAttention(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [AttentionSequence], into y: Tensor) throws

  /// Of the above.
  func causalAttentionGradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [AttentionSequence], dQ: Tensor, dK: Tensor, dV: Tensor) throws

  /// Cross-entropy of the rows of hidden [T, D] through the output weight [V, D], a chunk of rows
  /// at a time: [T, V] never exists. Rows labelled −100 count nothing and cost nothing.
  ///
  /// - Parameters:
  ///   - labels: [T]: the token each row should predict, or −100.
  ///   - scale: what a row's loss counts in the gradients.
  ///   - dHidden: [T, D], written: scale · gradient; zero for unlabelled rows.
  ///   - dWeight: [V, D], added to.
  /// - Returns: the unscaled sum of the rows' losses, in order, and the number of labelled rows.
  func crossEntropy(
    hidden: Tensor, weight: Tensor, labels: [Int32], scale: Float, dHidden: Tensor?,
    dWeight: Tensor?
  ) throws -> (sum: Double, rows: Int)

  /// Cross-entropy of some rows of hidden [T, D] through weight [V, D] and bias [V] to the shares of
  /// columns that they should have, a chunk of such rows at a time.
  ///
  /// - Parameters:
  ///   - dHidden: [T, D], added to, times each row's scale.
  ///   - dWeight, dBias: [V, D] and [V], added to.
  /// - Returns: of each row with a target, in the targets' order, its unscaled loss.
  func softCrossEntropy(
    hidden: Tensor, weight: Tensor, bias: Tensor?, targets: SoftTargets, dHidden: Tensor?,
    dWeight: Tensor?, dBias: Tensor?
  ) throws -> [SoftLoss]

  /// y = x / (1 − probability) where a draw of `random` (element's number) is at least
  /// `probability`, else 0; y may be x. Its own gradient's function.
  func dropout(_ x: Tensor, probability: Float, random: RandomStream, into y: Tensor) throws

  /// One AdamW update of value, all float32 of the same shape, in the order of PyTorch's:
  /// decay; moments; value −= lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
  func adamW(
    _ value: Tensor, gradient: Tensor, firstMoment: Tensor, secondMoment: Tensor,
    step: AdamWStep) throws

  /// The same from a gradient that is zero but for some rows; value is [V, D]. The bits are those
  /// of the whole gradient.
  func adamW(
    _ value: Tensor, gradient: SparseRows, firstMoment: Tensor, secondMoment: Tensor,
    step: AdamWStep) throws

  /// Σ x², in Double, in an order set by the number of elements alone.
  func sumOfSquares(_ x: Tensor) throws -> Double

  /// The same, with the bits of the whole matrix.
  func sumOfSquares(_ x: SparseRows) throws -> Double

  /// x ← 0.
  func clear(_ x: Tensor) throws
}
