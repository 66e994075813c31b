import CKernels
import COpenBLAS
import Tensors

/// Softmax(q · kᵀ / √H) · v of every head, each row seeing all of its picture.
///
/// q, k, v, y [T, heads · H], pictures of R rows one behind the other. A picture's rows travel
/// together, so the products are OpenBLAS's; heads and blocks of query rows of a fixed height are
/// the tiles, and only one block's scores exist at a time in each thread.
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

    OpenBLAS.useOneThread()
    let size = width / heads
    let scale = 1 / Float(size).squareRoot()
    let blocks = (rows + blockRows - 1) / blockRows
    let (queries, keys, values, into) = (q.floatBase, k.floatBase, v.floatBase, y.floatBase)
    let stride = Int32(width)
    let tiles = q.shape[0] / rows * heads * blocks
    device.parallel(tiles: tiles, cost: min(blockRows, rows) * (rows + size)) { tile, scratch in
      let (section, block) = tile.quotientAndRemainder(dividingBy: blocks)
      let (picture, head) = section.quotientAndRemainder(dividingBy: heads)
      let first = block * blockRows
      let count = min(blockRows, rows - first)
      let all = picture * rows * width + head * size
      let corner = all + first * width
      let scores = scratch.floats(count * rows)
      cblas_sgemm(
        CblasRowMajor, CblasNoTrans, CblasTrans, Int32(count), Int32(rows), Int32(size), 1,
        queries + corner, stride, keys + all, stride, 0, scores, Int32(rows))
      for row in 0..<count { device.kernels.softmax(scores + row * rows, rows, scale) }
      cblas_sgemm(
        CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(count), Int32(size), Int32(rows), 1,
        scores, Int32(rows), values + all, stride, 0, into + corner, stride)
    }
    withExtendedLifetime((q, k, v, y)) {}
  }

  private static let blockRows = 128

  /// With P the softmax, dP = dY · vᵀ and dS = P ⊙ (dP − Σ dY ⊙ y) / √H: dV = Pᵀ · dY,
  /// dQ = dS · k, dK = dSᵀ · q. P is computed again, a block of query rows at a time.
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

    OpenBLAS.useOneThread()
    let size = width / heads
    let operands = AttentionGradient(
      dY: dY.floatBase, q: q.floatBase, k: k.floatBase, v: v.floatBase, y: y.floatBase,
      dQ: dQ.floatBase, dK: dK.floatBase, dV: dV.floatBase, queryStride: width, keyStride: width,
      size: size, kernels: device.kernels)
    // Keys and values of a head gather from all its rows: one task, one order.
    device.parallel(tiles: q.shape[0] / rows * heads, cost: rows * (rows + size)) { tile, scratch in
      let (picture, head) = tile.quotientAndRemainder(dividingBy: heads)
      let corner = picture * rows * width + head * size
      for first in stride(from: 0, to: rows, by: blockRows) {
        operands.block(
          query: corner + first * width, key: corner, rows: min(blockRows, rows - first),
          keys: rows, visible: nil, adding: first > 0, scratch: scratch)
      }
    }
    withExtendedLifetime((dY, q, k, v, y, dQ, dK, dV)) {}
  }
}
