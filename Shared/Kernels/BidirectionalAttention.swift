import CKernels
import Tensors

/// Softmax(q · kᵀ / √H) · v of every head, each row seeing all of its picture.
///
/// q, k, v, y [T, heads · H], pictures of R rows one behind the other. A head's keys and values are
/// laid out as a cache's blocks, near the thread that needs them, and taken block by block with a
/// running softmax (arXiv:1805.02867): no [R, R] exists.
enum BidirectionalAttention {
  static func forward(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, rowsEach rows: Int, into y: Tensor,
    on device: CPUDevice
  ) throws {
    try q.requireRows(nil, "queries")
    try q.requirePictures(of: rows, "queries")
    let width = q.shape[1]
    guard heads > 0, width % heads == 0 else {
      throw TensorError.shapeMismatch(
        what: "queries of \(heads) heads", expected: [q.shape[0], max(heads, 1)], found: q.shape)
    }
    for (tensor, what) in [(k, "keys"), (v, "values"), (y, "attention's output")] {
      try tensor.require(.float32, what: what)
      try tensor.require(shape: q.shape, what)
    }
    guard q.count > 0 else { return }

    let size = width / heads
    let head = Head(
      q: q.floatBase, k: k.floatBase, v: v.floatBase, y: y.floatBase, width: width, size: size,
      rows: rows, kernels: device.kernels)
    // A head is laid out once for each part of its rows: parts enough for all threads, no more.
    let sections = q.shape[0] / rows * heads
    let blocks = (rows + Head.tileRows - 1) / Head.tileRows
    let parts = min(blocks, (4 * device.pool.threadCount + sections - 1) / sections)
    device.parallel(tiles: sections * parts, cost: rows * (rows / parts + size)) { tile, scratch in
      let (section, part) = tile.quotientAndRemainder(dividingBy: parts)
      let (picture, number) = section.quotientAndRemainder(dividingBy: heads)
      let (first, end) = (blocks * part / parts, blocks * (part + 1) / parts)
      head.attend(
        first * Head.tileRows..<min(end * Head.tileRows, rows),
        corner: picture * rows * width + number * size, scratch)
    }
    withExtendedLifetime((q, k, v, y)) {}
  }

  /// The heads of a call; one is told from another by its corner, the offset of its first element.
  private struct Head {
    let q: UnsafePointer<Float>
    let k: UnsafePointer<Float>
    let v: UnsafePointer<Float>
    let y: UnsafeMutablePointer<Float>
    /// Elements between rows.
    let width: Int
    /// Elements of a head.
    let size: Int
    /// Rows of a picture.
    let rows: Int
    let kernels: ck_kernels

    /// Rows that pass over a block together, while it is near.
    static let tileRows = 48

    func attend(_ range: Range<Int>, corner: Int, _ scratch: Scratch) {
      let layout = CacheLayout(type: .float32, keyValueHeads: 1, headSize: size)
      let blocks = CacheLayout.blocks(holding: rows)
      let floatsEach = layout.blockBytes / MemoryLayout<Float>.size
      let memory = scratch.floats(
        blocks * floatsEach + kernels.attention_scratch(CK_CACHE_FLOAT32, Head.tileRows, size))
      withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: blocks) { addresses in
        for block in 0..<blocks {
          let into = memory + block * floatsEach
          let first = block * CacheLayout.blockPositions
          let from = corner + first * width
          kernels.append_to_block(
            CK_CACHE_FLOAT32, size, k + from, v + from, width, 0,
            min(CacheLayout.blockPositions, rows - first), into)
          addresses[block] = UnsafeRawPointer(into)
        }
        guard let addresses = UnsafePointer(addresses.baseAddress) else { return }
        for first in stride(from: range.lowerBound, to: range.upperBound, by: Head.tileRows) {
          let start = corner + first * width
          var call = ck_attention(
            type: CK_CACHE_FLOAT32, size: size, rows: min(Head.tileRows, range.upperBound - first),
            group: 1, visible: rows, causal: false, q: q + start, y: y + start, stride: width,
            blocks: addresses, offset: 0)
          kernels.attend(&call, memory + blocks * floatsEach)
        }
      }
    }
  }

  /// As ``AttentionGradient``.
  static func gradient(
    dY: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, heads: Int, rowsEach rows: Int,
    dQ: Tensor, dK: Tensor, dV: Tensor, on device: CPUDevice
  ) throws {
    try q.requireRows(nil, "queries")
    try q.requirePictures(of: rows, "queries")
    let width = q.shape[1]
    guard heads > 0, width % heads == 0 else {
      throw TensorError.shapeMismatch(
        what: "queries of \(heads) heads", expected: [q.shape[0], max(heads, 1)], found: q.shape)
    }
    for (tensor, what) in [
      (k, "keys"), (v, "values"), (y, "attention's output"),
      (dY, "the gradient of attention's output"), (dQ, "the gradient of queries"),
      (dK, "the gradient of keys"), (dV, "the gradient of values"),
    ] {
      try tensor.requireRows(like: q, what)
    }
    guard q.count > 0 else { return }

    let size = width / heads
    let operands = AttentionGradient(
      dY: dY.floatBase, q: q.floatBase, k: k.floatBase, v: v.floatBase, y: y.floatBase,
      dQ: dQ.floatBase, dK: dK.floatBase, dV: dV.floatBase, queryStride: width, keyStride: width,
      size: size, group: 1, causal: false, kernels: device.kernels)
    device.parallel(tiles: q.shape[0] / rows * heads, cost: rows * (rows + size)) { tile, scratch in
      let (picture, head) = tile.quotientAndRemainder(dividingBy: heads)
      operands.compute(
        rows: picture * rows..<(picture + 1) * rows, head: head, scratch: scratch)
    }
    withExtendedLifetime((dY, q, k, v, y, dQ, dK, dV)) {}
  }
}
