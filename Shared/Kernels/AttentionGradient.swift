import CKernels
import COpenBLAS
import Tensors

/// The gradient of one head's attention, a block of query rows at a time.
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
  let kernels: ck_kernels

  /// - Parameters:
  ///   - query: offset of the block's first element in dY, q, y and dQ.
  ///   - key: offset of the first key's first element in k, v, dK and dV.
  ///   - rows: query rows of the block.
  ///   - keys: keys that the block sees at most.
  ///   - visible: keys that the block's first row sees, each further row one more; nil: all.
  ///   - adding: whether dK and dV are added to; dQ is written.
  func block(
    query: Int, key: Int, rows: Int, keys: Int, visible: Int?, adding: Bool, scratch: Scratch
  ) {
    let scale = 1 / Float(size).squareRoot()
    let (queryLine, keyLine) = (Int32(queryStride), Int32(keyStride))
    let (m, n, h) = (Int32(rows), Int32(keys), Int32(size))
    let weights = scratch.floats(2 * rows * keys)
    let slopes = weights + rows * keys
    cblas_sgemm(
      CblasRowMajor, CblasNoTrans, CblasTrans, m, n, h, 1, q + query, queryLine, k + key, keyLine,
      0, weights, n)
    for row in 0..<rows {
      let seen = min(keys, visible.map { $0 + row } ?? keys)
      kernels.softmax(weights + row * keys, seen, scale)
      (weights + row * keys + seen).update(repeating: 0, count: keys - seen)
    }
    cblas_sgemm(
      CblasRowMajor, CblasTrans, CblasNoTrans, n, h, m, 1, weights, n, dY + query, queryLine,
      adding ? 1 : 0, dV + key, keyLine)

    cblas_sgemm(
      CblasRowMajor, CblasNoTrans, CblasTrans, m, n, h, 1, dY + query, queryLine, v + key, keyLine,
      0, slopes, n)
    for row in 0..<rows {
      let start = query + row * queryStride
      kernels.softmax_gradient(
        weights + row * keys, keys, kernels.dot(dY + start, y + start, size), scale,
        slopes + row * keys)
    }
    cblas_sgemm(
      CblasRowMajor, CblasNoTrans, CblasNoTrans, m, h, n, 1, slopes, n, k + key, keyLine, 0,
      dQ + query, queryLine)
    cblas_sgemm(
      CblasRowMajor, CblasTrans, CblasNoTrans, n, h, m, 1, slopes, n, q + query, queryLine,
      adding ? 1 : 0, dK + key, keyLine)
  }
}
