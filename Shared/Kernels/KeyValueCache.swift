import CKernels
import Tensors

/// Keys and values of past tokens, in ``CacheBlocks``.
enum KeyValueCache {
  /// Writes the rows of k and v [T, KV · H] that belong to a span into its blocks. Rows of no
  /// span are passed over.
  static func append(
    k: Tensor, v: Tensor, keyValueHeads: Int, spans: [AttentionSpan], on device: CPUDevice
  ) throws {
    try k.requireRows(nil, "keys")
    try v.require(.float32, what: "values")
    try v.require(shape: k.shape, "values")
    let (rows, width) = (k.shape[0], k.shape[1])
    guard keyValueHeads > 0, width % keyValueHeads == 0 else {
      throw TensorError.shapeMismatch(
        what: "keys of \(keyValueHeads) heads", expected: [rows, max(keyValueHeads, 1)],
        found: k.shape)
    }
    let size = width / keyValueHeads
    try check(spans, rows: rows, keyValueHeads: keyValueHeads, size: size)
    guard size > 0 else { return }

    let (keys, values) = (k.floatBase, v.floatBase)
    // A few rows are less work than the other threads' waking.
    let appended = spans.reduce(0) { $0 + $1.rows.count }
    let pieces = appended >= CacheLayout.blockPositions ? keyValueHeads : 1
    func append(_ tile: Int) {
      let (index, piece) = tile.quotientAndRemainder(dividingBy: pieces)
      let heads = keyValueHeads * piece / pieces..<keyValueHeads * (piece + 1) / pieces
      for head in heads {
        spans[index].append(
          keys: keys + head * size, values: values + head * size, stride: width, head: head,
          kernels: device.kernels)
      }
    }
    if pieces > 1 {
      device.pool.parallel(spans.count * pieces) { tile, _ in append(tile) }
    } else {
      for tile in spans.indices { append(tile) }
    }
    withExtendedLifetime((k, v, spans)) {}
  }

  /// Checks that every span lies in the batch, that its blocks are of such heads and reach its
  /// last row.
  static func check(
    _ spans: [AttentionSpan], rows: Int, keyValueHeads: Int, size: Int
  ) throws {
    for span in spans where !span.rows.isEmpty {
      guard span.rows.lowerBound >= 0, span.rows.upperBound <= rows, span.position >= 0 else {
        throw KernelError.spanOutOfRange(rows: span.rows, batch: rows)
      }
      let layout = span.cache.layout
      guard layout.keyValueHeads == keyValueHeads, layout.headSize == size else {
        throw TensorError.shapeMismatch(
          what: "heads of a cache, and their size", expected: [keyValueHeads, size],
          found: [layout.keyValueHeads, layout.headSize])
      }
      guard span.cache.positions >= span.end else {
        throw KernelError.cacheTooShort(positions: span.cache.positions, needed: span.end)
      }
    }
  }
}

extension AttentionSpan {
  /// Writes one head of the span's rows; `keys` and `values` are those of the batch's first row.
  fileprivate func append(
    keys: UnsafePointer<Float>, values: UnsafePointer<Float>, stride: Int, head: Int,
    kernels: ck_kernels
  ) {
    let layout = cache.layout
    let offset = head * layout.headBytes
    var row = rows.lowerBound
    while row < rows.upperBound {
      let (block, slot) = (position + row - rows.lowerBound).quotientAndRemainder(
        dividingBy: CacheLayout.blockPositions)
      let count = min(CacheLayout.blockPositions - slot, rows.upperBound - row)
      kernels.append_to_block(
        layout.type.kernelType, layout.headSize, keys + row * stride, values + row * stride,
        stride, slot, count, cache.blocks[block].baseAddress + offset)
      row += count
    }
  }
}
