import COpenBLAS
import Tensors

/// y [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N], weights float32 or bfloat16.
///
/// Every element is the same sum, whatever tile it falls in, so that a token has the same bits in
/// a batch as alone, and a stream does not change with its neighbours.
enum Linear {
  static func forward(_ x: Tensor, _ products: [LinearProduct], on device: CPUDevice) throws {
    try x.requireRows(nil, "the input of a linear layer")
    let (rows, depth) = (x.shape[0], x.shape[1])
    for product in products {
      let shape = product.weight.shape
      if case .rows(let weight) = product.weight {
        try weight.require(.float32, .bfloat16, what: "a linear layer's weight")
      }
      guard shape.count == 2, shape[1] == depth else {
        throw TensorError.shapeMismatch(
          what: "a linear layer's weight", expected: [shape.first ?? 0, depth], found: shape)
      }
      let outputs = shape[0]
      try product.bias?.requireParameters(outputs, "a linear layer's bias")
      if case .add(let scale?) = product.finish {
        try scale.requireParameters(outputs, "a layer scale")
      }
      try product.y.require(.float32, what: "the output of a linear layer")
      try product.y.require(shape: [rows, outputs], "the output of a linear layer")
    }
    guard rows > 0 else { return }
    for product in products where product.y.count > 0 { try compute(x, product, on: device) }
  }

  private static func compute(
    _ x: Tensor, _ product: LinearProduct, on device: CPUDevice
  ) throws {
    guard case .rows(let weight) = product.weight else {
      preconditionFailure("no kernel for packed weights")
    }
    let (rows, depth, outputs) = (x.shape[0], x.shape[1], product.y.shape[1])
    func store(into y: Tensor) {
      device.withFloats(ofOptional: product.bias) { bias in
        withExtendedLifetime((x.storage, weight.storage, y.storage)) {
          Product(
            x: x.floatBase, rows: rows, depth: depth, weight: weight.baseAddress,
            halves: weight.scalarType == .bfloat16, outputs: outputs, bias: bias, y: y.floatBase
          ).throughLanes(on: device)
        }
      }
    }
    switch product.finish {
    case .store: store(into: product.y)
    case .gelu:
      store(into: product.y)
      try device.gelu(product.y)
    case .add(let scale):
      let branch = Tensor(uninitialized: .float32, product.y.shape)
      store(into: branch)
      try device.addScaled(branch, scale: scale, to: product.y)
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
}

/// The settings of the BLAS library, which belong to the whole process.
enum OpenBLAS {
  /// Takes OpenBLAS's own threads away, once.
  static func useOneThread() { _ = once }

  private static let once: Void = openblas_set_num_threads(1)
}
