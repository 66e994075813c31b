import COpenBLAS
import Tensors

/// y [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N], weights float32 or bfloat16.
///
/// Rows that are ``RowGrouping/independent`` go through our own kernels, since a BLAS picks its
/// blocking, and with it the order of a sum, by the number of rows: a token would get other
/// bits in a batch than alone, and a stream could change with its neighbours. Here every
/// element is the same dot product of sixteen lanes, whatever tile it falls in. Weights are read
/// where they lie: a token's step at the speed of memory, a prompt's rows at most of the speed
/// of arithmetic, since both operands run along the depth.
///
/// Pictures go to OpenBLAS, a call for each picture and block of columns of a size that does not
/// depend on the number of threads, so that the sums do not either. OpenBLAS itself gets one
/// thread, because its own spin while idle.
enum Linear {
  static func forward(
    _ x: Tensor, weight: Tensor, bias: Tensor?, grouping: RowGrouping, into y: Tensor,
    on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the input of a linear layer")
    let (rows, depth) = (x.shape[0], x.shape[1])
    try weight.require(.float32, .bfloat16, what: "a linear layer's weight")
    guard weight.shape.count == 2, weight.shape[1] == depth else {
      throw TensorError.shapeMismatch(
        what: "a linear layer's weight", expected: [weight.shape.first ?? 0, depth],
        found: weight.shape)
    }
    let outputs = weight.shape[0]
    try bias?.requireParameters(outputs, "a linear layer's bias")
    try y.require(.float32, what: "the output of a linear layer")
    try y.require(shape: [rows, outputs], "the output of a linear layer")
    if case .pictures(let rowsEach) = grouping {
      try x.requirePictures(of: rowsEach, "the input of a linear layer")
    }
    guard rows > 0, outputs > 0 else { return }

    device.withFloats(ofOptional: bias) { bias in
      let product = Product(
        x: x.floatBase, rows: rows, depth: depth, weight: weight.baseAddress,
        halves: weight.scalarType == .bfloat16, outputs: outputs, bias: bias, y: y.floatBase)
      withExtendedLifetime((x.storage, weight.storage, y.storage)) {
        if case .pictures(let rowsEach) = grouping, depth > 0 {
          product.throughBLAS(rowsEach: rowsEach, on: device)
        } else {
          product.throughLanes(on: device)
        }
      }
    }
  }
}

/// One product, shapes checked.
private struct Product {
  let x: UnsafePointer<Float>
  let rows: Int
  let depth: Int
  let weight: UnsafeRawPointer
  let halves: Bool
  let outputs: Int
  let bias: UnsafePointer<Float>?
  let y: UnsafeMutablePointer<Float>

  private var weightBytes: Int { halves ? 2 : 4 }

  private func weightRow(_ output: Int) -> UnsafeRawPointer {
    weight + output * depth * weightBytes
  }

  func throughLanes(on device: CPUDevice) {
    let (height, width) = (bandHeight, columnWidth(threads: device.pool.threadCount))
    let bands = (rows + height - 1) / height
    let columns = (outputs + width - 1) / width
    // Bands of the same columns follow each other, while their weights are in the last cache.
    device.pool.parallel(bands * columns) { tile, _ in
      let (column, band) = tile.quotientAndRemainder(dividingBy: bands)
      let (first, top) = (column * width, band * height)
      device.kernels.linear(
        x + top * depth, depth, min(height, rows - top), weightRow(first), halves, depth,
        min(width, outputs - first), bias.map { $0 + first }, y + top * outputs + first, outputs)
    }
  }

  /// Rows of x that stay in a core's cache while weights pass by; at least enough of them to
  /// make good the passing.
  private var bandHeight: Int {
    let limit = max(24, 262_144 / max(depth * 4, 1) / 6 * 6)
    let bands = (rows + limit - 1) / limit
    // Of equal height, in whole register tiles of 3 or 6 rows.
    return ((rows + bands - 1) / bands + 5) / 6 * 6
  }

  /// Outputs whose weights make a tile: many, so that reading them seldom starts anew, yet few
  /// enough to give every thread its share of them. The more rows use a weight, the fewer
  /// outputs are worth handing out.
  private func columnWidth(threads: Int) -> Int {
    let rowBytes = max(depth * weightBytes, 1)
    let least = 65_536 / max(1, min(rows, bandHeight) / 6)
    let bytes = min(max(outputs * rowBytes / (8 * threads), least), 1_048_576)
    return max(1, bytes / rowBytes / 4) * 4
  }

  func throughBLAS(rowsEach: Int, on device: CPUDevice) {
    OpenBLAS.useOneThread()
    let width = 256
    let columns = (outputs + width - 1) / width
    // Small pictures share a task, and with it the widened weights.
    let pictures = rows / rowsEach
    let perTask = max(1, (128 + rowsEach - 1) / rowsEach, pictures * columns / 64)
    let shares = (pictures + perTask - 1) / perTask
    device.pool.parallel(columns * shares) { tile, scratch in
      let (column, share) = tile.quotientAndRemainder(dividingBy: shares)
      let first = column * width
      let count = min(width, outputs - first)
      var block = weightRow(first).assumingMemoryBound(to: Float.self)
      if halves {
        let widened = scratch.floats(count * depth)
        device.kernels.widen(
          weightRow(first).assumingMemoryBound(to: UInt16.self), count * depth, widened)
        block = UnsafePointer(widened)
      }
      for picture in share * perTask..<min((share + 1) * perTask, pictures) {
        let top = picture * rowsEach
        let into = y + top * outputs + first
        cblas_sgemm(
          CblasRowMajor, CblasNoTrans, CblasTrans, Int32(rowsEach), Int32(count), Int32(depth), 1,
          x + top * depth, Int32(depth), block, Int32(depth), 0, into, Int32(outputs))
        if let bias { device.kernels.add_bias(into, outputs, rowsEach, count, bias + first) }
      }
    }
  }
}

/// The settings of the BLAS library, which belong to the whole process.
enum OpenBLAS {
  /// Takes OpenBLAS's own threads away, once.
  static func useOneThread() { _ = once }

  private static let once: Void = openblas_set_num_threads(1)
}
