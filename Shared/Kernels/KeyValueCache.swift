import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Keys and values of past tokens, in blocks [KV, B, H] of B positions each.
enum KeyValueCache {
  /// The sizes that all blocks of a call share.
  struct Layout {
    let keyValueHeads: Int
    /// Positions in a block.
    let positions: Int
    /// Elements of a head.
    let size: Int

    /// Elements of one head of a block.
    var headStride: Int { positions * size }
  }

  /// Writes the rows of k and v [T, KV · H] that belong to a span into its blocks. Rows of no
  /// span are passed over.
  static func append(k: Tensor, v: Tensor, keyValueHeads: Int, spans: [AttentionSpan]) throws {
    try k.requireRows(nil, "keys")
    try v.require(.float32, what: "values")
    try v.require(shape: k.shape, "values")
    let (rows, width) = (k.shape[0], k.shape[1])
    guard keyValueHeads > 0, width % keyValueHeads == 0 else {
      throw TensorError.shapeMismatch(
        what: "keys of \(keyValueHeads) heads", expected: [rows, max(keyValueHeads, 1)],
        found: k.shape)
    }
    let layout = try layout(
      of: spans, rows: rows, keyValueHeads: keyValueHeads, size: width / keyValueHeads)
    guard let layout else { return }

    let bytes = layout.size * MemoryLayout<Float>.size
    for span in spans {
      for (offset, row) in span.rows.enumerated() {
        let (block, slot) = (span.position + offset).quotientAndRemainder(
          dividingBy: layout.positions)
        for head in 0..<keyValueHeads {
          let from = row * width + head * layout.size
          let into = head * layout.headStride + slot * layout.size
          memcpy(span.keys[block].floatBase + into, k.floatBase + from, bytes)
          memcpy(span.values[block].floatBase + into, v.floatBase + from, bytes)
        }
      }
    }
    withExtendedLifetime((k, v, spans)) {}
  }

  /// Checks that every span lies in the batch and every block has the same shape, and that the
  /// blocks reach the last row. Nil when no span has a row.
  static func layout(
    of spans: [AttentionSpan], rows: Int, keyValueHeads: Int, size: Int
  ) throws -> Layout? {
    var shape: [Int]?
    for span in spans where !span.rows.isEmpty {
      guard span.rows.lowerBound >= 0, span.rows.upperBound <= rows, span.position >= 0 else {
        throw KernelError.spanOutOfRange(rows: span.rows, batch: rows)
      }
      for (blocks, what) in [(span.keys, "a key block"), (span.values, "a value block")] {
        for block in blocks {
          try block.require(.float32, what: what)
          let positions = block.shape.count == 3 ? block.shape[1] : 1
          let expected = shape ?? [keyValueHeads, positions, size]
          try block.require(shape: expected, what)
          shape = expected
        }
        let held = blocks.count * (shape?[1] ?? 0)
        let needed = span.position + span.rows.count
        guard held >= needed else {
          throw KernelError.cacheTooShort(positions: held, needed: needed)
        }
      }
    }
    guard let shape else { return nil }
    return Layout(keyValueHeads: keyValueHeads, positions: shape[1], size: size)
  }
}
