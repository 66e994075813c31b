import CKernels
import Tensors

/// Causal attention of whole sequences: q, y [T, Q · H], k, v [T, KV · H], each row seeing the
/// rows of its own sequence up to itself.
enum CausalAttention {
  /// Goes through cache blocks, so that training computes the very bits of inference.
  static func forward(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, keyValueHeads: Int, sequences: [Range<Int>],
    into y: Tensor, on device: CPUDevice
  ) throws {
    let layout = try Layout(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, sequences: sequences)
    try y.requireRows(like: q, "attention's output")

    if sequences.reduce(0, { $0 + $1.count }) < q.shape[0] { try device.clear(y) }
    let cache = CacheLayout(type: .float32, keyValueHeads: keyValueHeads, headSize: layout.size)
    let counts = sequences.map { CacheLayout.blocks(holding: $0.count) }
    let floats = counts.reduce(0, +) * cache.blockBytes / MemoryLayout<Float>.size
    try device.workspace.withFloats(floats) { room in
      var offset = room.byteOffset
      let spans = try zip(sequences, counts).map { rows, count in
        var blocks = CacheBlocks(layout: cache)
        for _ in 0..<count {
          try blocks.append(
            Tensor(.uint8, [cache.blockBytes], storage: room.storage, byteOffset: offset))
          offset += cache.blockBytes
        }
        return AttentionSpan(rows: rows, position: 0, cache: blocks)
      }
      try device.appendToCache(k: k, v: v, keyValueHeads: keyValueHeads, spans: spans)
      try device.cachedAttention(
        q: q, heads: heads, keyValueHeads: keyValueHeads, spans: spans, into: y)
    }
  }

  /// As ``AttentionGradient``; zero for rows of no sequence.
  static func gradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [Range<Int>], dQ: Tensor, dK: Tensor, dV: Tensor, on device: CPUDevice
  ) throws {
    let layout = try Layout(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, sequences: sequences)
    try y.requireRows(like: q, "attention's output")
    try dY.requireRows(like: q, "the gradient of attention's output")
    try dQ.requireRows(like: q, "the gradient of queries")
    try dK.requireRows(like: k, "the gradient of keys")
    try dV.requireRows(like: k, "the gradient of values")
    if sequences.reduce(0, { $0 + $1.count }) < q.shape[0] {
      for tensor in [dQ, dK, dV] { try device.clear(tensor) }
    }
    guard q.count > 0 else { return }

    let operands = AttentionGradient(
      dY: dY.floatBase, q: q.floatBase, k: k.floatBase, v: v.floatBase, y: y.floatBase,
      dQ: dQ.floatBase, dK: dK.floatBase, dV: dV.floatBase, queryStride: heads * layout.size,
      keyStride: keyValueHeads * layout.size, size: layout.size, group: heads / keyValueHeads,
      causal: true, kernels: device.kernels)
    // The longest first: the tasks end together.
    let sequences = sequences.filter { !$0.isEmpty }.sorted { $0.count > $1.count }
    device.pool.parallel(sequences.count * keyValueHeads) { tile, scratch in
      let (sequence, head) = tile.quotientAndRemainder(dividingBy: keyValueHeads)
      operands.compute(rows: sequences[sequence], head: head, scratch: scratch)
    }
    withExtendedLifetime((dY, q, k, v, y, dQ, dK, dV)) {}
  }

  /// The sizes of a call, checked.
  private struct Layout {
    /// Elements of a head.
    let size: Int

    init(
      q: Tensor, k: Tensor, v: Tensor, heads: Int, keyValueHeads: Int, sequences: [Range<Int>]
    ) throws {
      try q.requireRows(nil, "queries")
      let (rows, width) = (q.shape[0], q.shape[1])
      guard keyValueHeads > 0, heads > 0, heads % keyValueHeads == 0, width % heads == 0 else {
        throw TensorError.shapeMismatch(
          what: "queries of \(heads) heads over \(keyValueHeads)",
          expected: [rows, max(heads, 1)], found: q.shape)
      }
      size = width / heads
      for (tensor, what) in [(k, "keys"), (v, "values")] {
        try tensor.require(.float32, what: what)
        try tensor.require(shape: [rows, keyValueHeads * size], what)
      }
      var end = 0
      for sequence in sequences.sorted(by: { $0.lowerBound < $1.lowerBound })
      where !sequence.isEmpty {
        guard sequence.lowerBound >= 0, sequence.upperBound <= rows else {
          throw KernelError.spanOutOfRange(rows: sequence, batch: rows)
        }
        guard sequence.lowerBound >= end else {
          throw KernelError.sequencesOverlap(rows: sequence, end: end)
        }
        end = sequence.upperBound
      }
    }
  }
}
