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
    compute(
      rows: rows, head: head,
      scratch.floats(kernels.attention_gradient_scratch(rows.count, size)))
  }

  private func compute(
    rows: Range<Int>, head: Int, _ memory: UnsafeMutablePointer<Float>
  ) {
    let query = rows.lowerBound * queryStride + head * group * size
    let key = rows.lowerBound * keyStride + head * size
    var call = ck_attention_gradient(
      size: size, rows: rows.count, group: group, causal: causal, q: q + query, k: k + key,
      v: v + key, y: y + query, dy: dY + query, dq: dQ + query, dk: dK + key, dv: dV + key,
      query_stride: queryStride, key_stride: keyStride)
    kernels.attention_gradient(&call, memory)
  }

  /// Writes dQ, dK and dV of a turn that sees `prefix` and itself, and adds to the prefix's dK and
  /// dV what comes from the turn.
  ///
  /// Prefix and turn are laid out as a sequence of their own. The queries of the prefix and what
  /// belongs to them are zero there, so that they add nothing to any gradient.
  func add(turn: Range<Int>, prefix: Range<Int>, head: Int, scratch: Scratch) {
    let (rows, wide) = (prefix.count + turn.count, group * size)
    let own = kernels.attention_gradient_scratch(rows, size)
    let memory = scratch.floats(own + rows * 4 * (wide + size))
    var next = memory + own
    func take(_ count: Int) -> UnsafeMutablePointer<Float> {
      defer { next += count }
      return next
    }
    /// The head's elements of rows, from `first` on.
    func gather(
      _ x: UnsafePointer<Float>, _ stride: Int, _ width: Int, _ rows: Range<Int>, at first: Int,
      into y: UnsafeMutablePointer<Float>
    ) {
      for (place, row) in rows.enumerated() {
        (y + (first + place) * width).update(from: x + row * stride + head * width, count: width)
      }
    }
    let (dY, q, y) = (take(rows * wide), take(rows * wide), take(rows * wide))
    let (k, v) = (take(rows * size), take(rows * size))
    let (dQ, dK, dV) = (take(rows * wide), take(rows * size), take(rows * size))
    for (from, to) in [(self.dY, dY), (self.q, q), (self.y, y)] {
      to.update(repeating: 0, count: prefix.count * wide)
      gather(from, queryStride, wide, turn, at: prefix.count, into: to)
    }
    for (from, to) in [(self.k, k), (self.v, v)] {
      gather(from, keyStride, size, prefix, at: 0, into: to)
      gather(from, keyStride, size, turn, at: prefix.count, into: to)
    }
    AttentionGradient(
      dY: dY, q: q, k: k, v: v, y: y, dQ: dQ, dK: dK, dV: dV, queryStride: wide, keyStride: size,
      size: size, group: group, causal: causal, kernels: kernels
    ).compute(rows: 0..<rows, head: 0, memory)

    for (place, row) in turn.enumerated() {
      (self.dQ + row * queryStride + head * wide)
        .update(from: dQ + (prefix.count + place) * wide, count: wide)
    }
    for (from, to) in [(dK, self.dK), (dV, self.dV)] {
      for (place, row) in prefix.enumerated() {
        let (sums, added) = (to + row * keyStride + head * size, from + place * size)
        for element in 0..<size { sums[element] += added[element] }
      }
      for (place, row) in turn.enumerated() {
        (to + row * keyStride + head * size)
          .update(from: from + (prefix.count + place) * size, count: size)
      }
    }
  }
}
