import CKernels

/// The gradient of attention over whole sequences, one of them and one key-value head at a time.
///
/// With P the softmax, dP = dY · vᵀ and dS = P ⊙ (dP − Σ dY ⊙ y) / √H: dV = Pᵀ · dY, dQ = dS · k,
/// dK = dSᵀ · q. P is computed again, a strip of query rows at a time. Keys and values gather from
/// all rows and from all heads that share them: one task, one order.
struct AttentionGradient {
  let dY: UnsafePointer<Float>
  let q: UnsafePointer<Float>
  let k: UnsafePointer<Float>
  let v: UnsafePointer<Float>
  let y: UnsafePointer<Float>
  let dQ: UnsafeMutablePointer<Float>
  let dK: UnsafeMutablePointer<Float>
  let dV: UnsafeMutablePointer<Float>
  /// Elements between rows of dY, q, y and dQ.
  let queryStride: Int
  /// Elements between rows of k, v, dK and dV.
  let keyStride: Int
  /// Elements of a head.
  let size: Int
  /// Query heads of a key-value head.
  let group: Int
  /// Whether a row sees the rows up to itself, or all.
  let causal: Bool
  let kernels: ck_kernels

  /// Writes dQ, dK and dV of `rows` in key-value head `head`.
  func compute(rows: Range<Int>, head: Int, scratch: Scratch) {
    let query = rows.lowerBound * queryStride + head * group * size
    let key = rows.lowerBound * keyStride + head * size
    var call = ck_attention_gradient(
      size: size, rows: rows.count, group: group, causal: causal, q: q + query, k: k + key,
      v: v + key, y: y + query, dy: dY + query, dq: dQ + query, dk: dK + key, dv: dV + key,
      query_stride: queryStride, key_stride: keyStride)
    kernels.attention_gradient(
      &call, scratch.floats(kernels.attention_gradient_scratch(rows.count, size)))
  }
}
