import CKernels
import Tensors

/// Causal attention of whole sequences: q, y [T, Q · H], k, v [T, KV · H], each row seeing the
/// rows of its own sequence up to itself, and of its own turn where there are several.
enum CausalAttention {
  /// Goes through cache blocks, so that training computes the very bits of inference. A turn's
  /// blocks are the prefix's as far as these are full, and its own from there on: its rows have the
  /// bits of a sequence of prefix and turn alone.
  static func forward(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [AttentionSequence], into y: Tensor, on device: CPUDevice
  ) throws {
    let layout = try Layout(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, sequences: sequences)
    try y.requireRows(like: q, "attention's output")

    if sequences.reduce(0, { $0 + $1.rows.count }) < q.shape[0] { try device.clear(y) }
    let cache = CacheLayout(type: .float32, keyValueHeads: keyValueHeads, headSize: layout.size)
    let count = sequences.reduce(0) { $0 + $1.blocks }
    try device.workspace.withFloats(count * cache.blockBytes / MemoryLayout<Float>.size) { room in
      var offset = room.byteOffset
      func add(_ count: Int, to blocks: inout CacheBlocks) throws {
        for _ in 0..<count {
          try blocks.append(
            Tensor(.uint8, [cache.blockBytes], storage: room.storage, byteOffset: offset))
          offset += cache.blockBytes
        }
      }
      var spans: [AttentionSpan] = []
      // Rows of a prefix's last block that turns have copies of.
      var copies: [AttentionSpan] = []
      for sequence in sequences {
        var trunk = CacheBlocks(layout: cache)
        try add(CacheLayout.blocks(holding: sequence.trunk.count), to: &trunk)
        spans.append(AttentionSpan(rows: sequence.trunk, position: 0, cache: trunk))
        let position = sequence.prefix.count
        let shared = position / CacheLayout.blockPositions
        let full = shared * CacheLayout.blockPositions
        for turn in sequence.laterTurns {
          var blocks = CacheBlocks(layout: cache)
          for block in trunk.blocks[..<shared] { try blocks.append(block) }
          try add(CacheLayout.blocks(holding: position - full + turn.count), to: &blocks)
          spans.append(AttentionSpan(rows: turn, position: position, cache: blocks))
          guard full < position else { continue }
          copies.append(
            AttentionSpan(
              rows: sequence.prefix.dropFirst(full), position: full, cache: blocks))
        }
      }
      try device.appendToCache(k: k, v: v, keyValueHeads: keyValueHeads, spans: spans + copies)
      try device.cachedAttention(
        q: q, heads: heads, keyValueHeads: keyValueHeads, spans: spans, into: y)
    }
  }

  /// As ``AttentionGradient``; zero for rows of no sequence.
  ///
  /// What turns add to the keys and values of their prefix is added in their order, by the one
  /// task that a sequence and a key-value head are.
  static func gradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, keyValueHeads: Int,
    sequences: [AttentionSequence], dQ: Tensor, dK: Tensor, dV: Tensor, on device: CPUDevice
  ) throws {
    let layout = try Layout(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, sequences: sequences)
    try y.requireRows(like: q, "attention's output")
    try dY.requireRows(like: q, "the gradient of attention's output")
    try dQ.requireRows(like: q, "the gradient of queries")
    try dK.requireRows(like: k, "the gradient of keys")
    try dV.requireRows(like: k, "the gradient of values")
    if sequences.reduce(0, { $0 + $1.rows.count }) < q.shape[0] {
      for tensor in [dQ, dK, dV] { try device.clear(tensor) }
    }
    guard q.count > 0 else { return }

    let operands = AttentionGradient(
      dY: dY.floatBase, q: q.floatBase, k: k.floatBase, v: v.floatBase, y: y.floatBase,
      dQ: dQ.floatBase, dK: dK.floatBase, dV: dV.floatBase, queryStride: heads * layout.size,
      keyStride: keyValueHeads * layout.size, size: layout.size, group: heads / keyValueHeads,
      causal: true, kernels: device.kernels)
    // The longest first: the tasks end together.
    let sequences = sequences.filter { !$0.rows.isEmpty }.sorted { $0.rows.count > $1.rows.count }
    device.pool.parallel(sequences.count * keyValueHeads) { tile, scratch in
      let (index, head) = tile.quotientAndRemainder(dividingBy: keyValueHeads)
      let sequence = sequences[index]
      operands.compute(rows: sequence.trunk, head: head, scratch: scratch)
      for turn in sequence.laterTurns {
        operands.add(turn: turn, prefix: sequence.prefix, head: head, scratch: scratch)
      }
    }
    withExtendedLifetime((dY, q, k, v, y, dQ, dK, dV)) {}
  }

  /// The sizes of a call, checked.
  private struct Layout {
    /// Elements of a head.
    let size: Int

    init(
      q: Tensor, k: Tensor, v: Tensor, heads: Int, keyValueHeads: Int,
      sequences: [AttentionSequence]
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
      for sequence in sequences.sorted(by: { $0.rows.lowerBound < $1.rows.lowerBound }) {
        guard sequence.fitsTurns else {
          throw KernelError.turnsOutOfRange(turns: sequence.turns, rows: sequence.rows.count)
        }
        let own = sequence.rows
        guard !own.isEmpty else { continue }
        guard own.lowerBound >= 0, own.upperBound <= rows else {
          throw KernelError.spanOutOfRange(rows: own, batch: rows)
        }
        guard own.lowerBound >= end else {
          throw KernelError.sequencesOverlap(rows: own, end: end)
        }
        end = own.upperBound
      }
    }
  }
}

extension AttentionSequence {
  /// Whether every turn has a row, and all together have room.
  fileprivate var fitsTurns: Bool {
    var free = rows.count
    for turn in turns {
      guard turn > 0, turn <= free else { return false }
      free -= turn
    }
    return true
  }

  /// Cache blocks that hold its rows, a prefix's full ones once.
  fileprivate var blocks: Int {
    let rest = prefix.count % CacheLayout.blockPositions
    return laterTurns.reduce(CacheLayout.blocks(holding: trunk.count)) {
      $0 + CacheLayout.blocks(holding: rest + $1.count)
    }
  }
}
