import Tensors

/// One of the products of an input, and what becomes of it.
public struct LinearProduct: Sendable {
  /// What happens to p = x · weightᵀ + bias. The bits are those of the separate operations.
  public enum Finish: Sendable {
    /// y = p
    case store
    /// y = p · Φ(p), the exact (erf) GELU.
    case gelu
    /// y ← y + scale [N] ⊙ p, or y + p without a scale: the residual connection.
    case add(scale: Tensor?)
  }

  /// [N, K]
  public var weight: LinearWeight
  /// [N]
  public var bias: Tensor?
  public var finish: Finish
  /// [T, N], not overlapping the input.
  public var y: Tensor

  public init(
    _ weight: LinearWeight, bias: Tensor? = nil, finish: Finish = .store, into y: Tensor
  ) {
    self.weight = weight
    self.bias = bias
    self.finish = finish
    self.y = y
  }
}

/// The face behind which every operation of the model stands, so that a second kind of device
/// can take the first one's place.
///
/// Activations are float32. Weights are float32 or bfloat16, computed in float32, or quantised,
/// where activations are rounded to 8-bit blocks first. Operations write into a tensor they are
/// given. Results do not depend on the number of threads, and, except for the rows of one picture
/// (``bidirectionalAttention(q:k:v:heads:rowsEach:into:)``), a row's result does not depend on
/// the other rows of the call.
///
/// Legend: T rows, D model width, K input width, N output width, V vocabulary, Q query heads,
/// KV key-value heads, H head size. Shapes are checked: a mismatch throws ``TensorError``.
public protocol Device: Sendable {
  /// As given to `--device`.
  var name: String { get }

  /// x [T, K] times each weight [N, K]ᵀ. Products of one input are better asked for together.
  func linear(_ x: Tensor, _ products: [LinearProduct]) throws

  /// A weight [N, K], float32 or bfloat16, in the order in which this device computes fastest:
  /// the same products, bit for bit.
  func pack(_ weight: Tensor) throws -> PackedMatrix

  /// y [T, D]: rows `ids` of table [V, D]. An id outside the table throws ``KernelError``.
  func embed(_ ids: [Int32], table: LinearWeight, into y: Tensor) throws

  /// y = x / √(mean(x²) + epsilon) ⊙ weight for each row of x [T, D]; y may be x.
  func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor) throws

  /// y = (x − mean) / √(variance + epsilon) ⊙ weight + bias for each row of x [T, D]; y may be x.
  func layerNorm(
    _ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, into y: Tensor) throws

  /// x ← x · Φ(x), the exact (erf) GELU, in place.
  func gelu(_ x: Tensor) throws

  /// y = gate / (1 + e^−gate) ⊙ up, all [T, N]; y may be gate.
  func siluMultiply(gate: Tensor, up: Tensor, into y: Tensor) throws

  /// x [T, D] ← x + scale [D] ⊙ y, or x + y without a scale: the residual connection.
  func addScaled(_ y: Tensor, scale: Tensor?, to x: Tensor) throws

  /// Rotates the two halves of every head of x [T, heads·H] by the angles of `positions` [T];
  /// cosines and sines are [positions, H/2]. (rotate_half convention of the Llama code.) A
  /// position outside the tables throws ``KernelError``.
  func rotate(
    _ x: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor) throws

  /// Softmax(q·kᵀ/√H)·v of every head, each row seeing all of its picture: q, k, v, y
  /// [T, heads·H], T a multiple of `rowsEach`; y must not overlap the others.
  func bidirectionalAttention(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, rowsEach: Int, into y: Tensor) throws

  /// Writes rows of k and v [T, KV·H] into the cache blocks of their sequences. A span outside
  /// the batch, or blocks that end before its last position, throw ``KernelError``.
  func appendToCache(k: Tensor, v: Tensor, keyValueHeads: Int, spans: [AttentionSpan]) throws

  /// Causal attention of q [T, Q·H] over cached keys and values: the row at position p sees
  /// positions 0…p of its own sequence. Query head h reads key-value head h / (Q / KV). Rows of
  /// no span are left as they are. Throws as ``appendToCache(k:v:keyValueHeads:spans:)`` does.
  func cachedAttention(
    q: Tensor, heads: Int, keyValueHeads: Int, spans: [AttentionSpan], into y: Tensor) throws

  /// y [(height/patch)·(width/patch), 3·patch·patch]: the patches of pixels [3, height, width]
  /// in row-major order, each as channel, row, column.
  func patches(_ pixels: Tensor, patch: Int, into y: Tensor) throws
}

extension Device {
  /// y [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N]; y must not overlap x.
  public func linear(_ x: Tensor, weight: Tensor, bias: Tensor?, into y: Tensor) throws {
    try linear(x, [LinearProduct(.rows(weight), bias: bias, into: y)])
  }

  /// y [T, D]: rows `ids` of table [V, D].
  public func embed(_ ids: [Int32], table: Tensor, into y: Tensor) throws {
    try embed(ids, table: .rows(table), into: y)
  }
}
