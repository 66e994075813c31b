import CKernels
import Tensors

/// Causal attention of q [T, Q · H] over cached keys and values, the row at position p seeing
/// positions 0…p of its own sequence; query head h reads key-value head h / (Q / KV)
/// (grouped-query attention, arXiv:2305.13245).
///
/// Each row takes the cache block by block from position 0 on, with a running softmax
/// (arXiv:1805.02867). The blocks are the cache's own, so a row's bits depend on its position
/// alone, not on the chunk or batch in which it was computed.
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
    let layout = try KeyValueCache.layout(
      of: spans, rows: rows, keyValueHeads: keyValueHeads, size: width / heads)
    guard let layout, layout.size > 0 else { return }

    let tiles = spans.flatMap { span in
      stride(from: 0, to: span.rows.count, by: rowsPerTile).flatMap { first in
        (0..<keyValueHeads).map { head in
          Tile(
            span: span, rows: first..<min(first + rowsPerTile, span.rows.count),
            keyValueHead: head)
        }
      }
    }
    let group = heads / keyValueHeads
    let (queries, into) = (q.floatBase, y.floatBase)
    device.pool.parallel(tiles.count) { index, scratch in
      tiles[index].compute(
        queries: queries, into: into, width: width, group: group, layout: layout,
        scratch: scratch, kernels: device.kernels)
    }
    withExtendedLifetime((q, y, spans)) {}
  }

  /// Rows that pass over a block of the cache together, while it is near.
  private static let rowsPerTile = 16

  /// Some rows of one sequence, and the query heads that share one key-value head.
  private struct Tile {
    let span: AttentionSpan
    /// Counted from the span's first row.
    let rows: Range<Int>
    let keyValueHead: Int

    func compute(
      queries: UnsafePointer<Float>, into: UnsafeMutablePointer<Float>, width: Int, group: Int,
      layout: KeyValueCache.Layout, scratch: Scratch, kernels: ck_kernels
    ) {
      let size = layout.size
      let scale = 1 / Float(size).squareRoot()
      let states = rows.count * group
      let maxima = scratch.floats(states * 2 + group * layout.positions)
      let sums = maxima + states
      let scores = sums + states
      maxima.update(repeating: -.infinity, count: states)
      sums.update(repeating: 0, count: states)

      // The group's heads lie side by side in a row of queries and of the output.
      let corner = span.rows.lowerBound * width + keyValueHead * group * size
      for row in rows { (into + corner + row * width).update(repeating: 0, count: group * size) }

      let last = (span.position + rows.upperBound - 1) / layout.positions
      for block in 0...last {
        let offset = keyValueHead * layout.headStride
        let keys = span.keys[block].floatBase + offset
        let values = span.values[block].floatBase + offset
        for row in rows {
          let visible = span.position + row + 1 - block * layout.positions
          guard visible > 0 else { continue }
          let state = (row - rows.lowerBound) * group
          kernels.attend_block(
            queries + corner + row * width, group, size, keys, values,
            min(visible, layout.positions), scale, scores, maxima + state, sums + state,
            into + corner + row * width)
        }
      }
      for row in rows {
        for head in 0..<group {
          kernels.scale(
            into + corner + row * width + head * size, size,
            1 / sums[(row - rows.lowerBound) * group + head])
        }
      }
    }
  }
}
