import CKernels
import Tensors

/// Causal attention of q [T, Q · H] over cached keys and values, the row at position p seeing
/// positions 0…p of its own sequence; query head h reads key-value head h / (Q / KV)
/// (grouped-query attention, arXiv:2305.13245).
///
/// Each row takes the cache block by block from position 0 on, with a running softmax
/// (arXiv:1805.02867), begun anew with every segment of 1024 positions; the segments' results are
/// joined in order. Blocks and segments lie where they lie in the sequence, so a row's bits depend
/// on its position alone, not on the chunk or batch in which it was computed, and threads can
/// share a long sequence's segments.
enum CachedAttention {
  static func forward(
    q: Tensor, heads: Int, keyValueHeads: Int, spans: [AttentionSpan], into y: Tensor,
    on device: CPUDevice
  ) throws {
    try q.requireRows(nil, "queries")
    let (rows, width) = (q.shape[0], q.shape[1])
    guard keyValueHeads > 0, heads > 0, heads % keyValueHeads == 0, width % heads == 0 else {
      throw TensorError.shapeMismatch(
        what: "queries of \(heads) heads over \(keyValueHeads)",
        expected: [rows, max(heads, 1)], found: q.shape)
    }
    try y.require(.float32, what: "attention's output")
    try y.require(shape: q.shape, "attention's output")
    let size = width / heads
    try KeyValueCache.check(spans, rows: rows, keyValueHeads: keyValueHeads, size: size)
    guard size > 0 else { return }

    let call = Call(
      q: q.floatBase, y: y.floatBase, width: width, group: heads / keyValueHeads, size: size,
      kernels: device.kernels)
    var (tiles, joins): ([Tile], [Tile]) = ([], [])
    var stateFloats = 0
    for (index, span) in spans.enumerated() where !span.rows.isEmpty {
      let segments = (span.end + Tile.segment - 1) / Tile.segment
      let isShort = span.rows.count * call.group <= Tile.maximumRows / 2
      guard isShort, segments > 1 else {
        // The longest first: the threads end together.
        let step = max(Tile.maximumRows / call.group, 1)
        for first in stride(from: 0, to: span.rows.count, by: step).reversed() {
          let rows = first..<min(first + step, span.rows.count)
          for head in 0..<keyValueHeads {
            tiles.append(Tile(span: index, rows: rows, head: head))
          }
        }
        continue
      }
      let floats = device.kernels.attention_state(span.rows.count * call.group, size)
      for head in 0..<keyValueHeads {
        var tile = Tile(span: index, rows: 0..<span.rows.count, head: head)
        tile.state = stateFloats
        joins.append(tile)
        for segment in 0..<segments {
          tile.segment = segment
          tiles.append(tile)
          tile.state += floats
        }
        stateFloats = tile.state
      }
    }
    device.workspace.withFloats(stateFloats) { room in
      let states = room.floatBase
      device.pool.parallel(tiles.count) { index, scratch in
        let tile = tiles[index]
        tile.compute(call, spans[tile.span], states: states, scratch: scratch)
      }
      for tile in joins { tile.join(call, spans[tile.span], states: states) }
      withExtendedLifetime(room) {}
    }
    withExtendedLifetime((q, y, spans)) {}
  }

  /// What the tiles of a call share.
  private struct Call {
    let q: UnsafePointer<Float>
    let y: UnsafeMutablePointer<Float>
    /// Elements of a row.
    let width: Int
    /// Query heads of a key-value head.
    let group: Int
    /// Elements of a head.
    let size: Int
    let kernels: ck_kernels
  }

  /// Some rows of one sequence, and the query heads that share one key-value head.
  private struct Tile {
    /// Number of the span.
    let span: Int
    /// Counted from the span's first row.
    let rows: Range<Int>
    let head: Int
    /// The only segment to be computed, into the floats from `state` on.
    var segment: Int?
    var state = 0

    /// Query rows that pass over a block of the cache together, while it is near.
    static let maximumRows = 48
    /// Positions.
    static let segment = Int(CK_ATTENTION_SEGMENT)

    func compute(
      _ call: Call, _ span: AttentionSpan, states: UnsafeMutablePointer<Float>, scratch: Scratch
    ) {
      let type = span.cache.layout.type.kernelType
      let floats = call.kernels.attention_scratch(type, rows.count * call.group, call.size)
      with(call, span) { arguments in
        if let segment {
          call.kernels.attend_segment(&arguments, segment, scratch.floats(floats), states + state)
        } else {
          call.kernels.attend(&arguments, scratch.floats(floats))
        }
      }
    }

    func join(_ call: Call, _ span: AttentionSpan, states: UnsafeMutablePointer<Float>) {
      let segments = (span.end + Tile.segment - 1) / Tile.segment
      with(call, span) { call.kernels.join_segments(&$0, segments, states + state) }
    }

    private func with(
      _ call: Call, _ span: AttentionSpan, _ body: (inout ck_attention) -> Void
    ) {
      let (cache, layout) = (span.cache, span.cache.layout)
      let corner =
        (span.rows.lowerBound + rows.lowerBound) * call.width + head * call.group * call.size
      cache.addresses.withUnsafeBufferPointer { addresses in
        guard let blocks = addresses.baseAddress else { return }
        var arguments = ck_attention(
          type: layout.type.kernelType, size: call.size, rows: rows.count * call.group,
          group: call.group, visible: span.position + rows.lowerBound + 1, causal: true,
          q: call.q + corner, y: call.y + corner, stride: call.width, blocks: blocks,
          offset: head * layout.headBytes)
        body(&arguments)
      }
    }
  }
}
