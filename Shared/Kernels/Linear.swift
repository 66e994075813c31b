import CKernels
import Tensors

/// y [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N], and what becomes of it, for several weights at
/// once.
///
/// Every element is the same sum, whatever tile it falls in, so that a token has the same bits in
/// a batch as alone, and a stream does not change with its neighbours.
enum Linear {
  static func forward(_ x: Tensor, _ products: [LinearProduct], on device: CPUDevice) throws {
    try x.requireRows(nil, "the input of a linear layer")
    let (rows, depth) = (x.shape[0], x.shape[1])
    for product in products { try check(product, rows: rows, depth: depth) }
    guard rows > 0 else { return }

    withUnsafeTemporaryAllocation(of: ck_product.self, capacity: max(products.count, 1)) { room in
      // Behind each other: weights whose inputs are rounded, in floats, of 8 bits, of 4 bits.
      var count = 0
      func take(_ belongs: (PackedMatrix.Format?) -> Bool) -> Int {
        for product in products where product.y.count > 0 && belongs(product.weight.format) {
          room.initializeElement(at: count, to: operands(of: product, depth: depth))
          count += 1
        }
        return count
      }
      let rounded = device.roundsInputs ? take { $0 == .bfloat16 } : 0
      let floats = take {
        $0 != .q8 && $0 != .q4 && !(device.roundsInputs && $0 == .bfloat16)
      }
      let bytes = take { $0 == .q8 }
      let all = take { $0 == .q4 }
      if rounded > 0 {
        ProductTiles(
          UnsafeBufferPointer(rebasing: room[..<rounded]), rows: rows, inPairs: true, on: device
        ).compute(x.floatBase, stride: depth, on: device)
      }
      if floats > rounded {
        ProductTiles(
          UnsafeBufferPointer(rebasing: room[rounded..<floats]), rows: rows, on: device
        ).compute(x.floatBase, stride: depth, on: device)
      }
      if all > floats {
        QuantisedTiles(
          UnsafeBufferPointer(rebasing: room[floats..<all]), firstOf4Bits: bytes - floats,
          rows: rows, on: device
        ).compute(x.floatBase, stride: depth, on: device)
      }
    }
    withExtendedLifetime((x, products)) {}
  }

  private static func check(_ product: LinearProduct, rows: Int, depth: Int) throws {
    let shape: [Int]
    switch product.weight {
    case .rows(let weight):
      try weight.require(.float32, .bfloat16, what: "a linear layer's weight")
      shape = weight.shape
    case .panels(let matrix): shape = [matrix.outputs, matrix.depth]
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

  private static func operands(of product: LinearProduct, depth: Int) -> ck_product {
    let (weight, bfloat16, layout, stride): (UnsafeRawPointer, Bool, ck_layout, Int)
    switch product.weight {
    case .rows(let tensor):
      (weight, bfloat16) = (UnsafeRawPointer(tensor.baseAddress), tensor.scalarType == .bfloat16)
      (layout, stride) = (CK_ROWS, depth)
    case .panels(let matrix):
      (weight, bfloat16) = (
        UnsafeRawPointer(matrix.panels.baseAddress), matrix.format == .bfloat16
      )
      (layout, stride) = (CK_PANELS, matrix.panelBytes)
    }
    let (finish, scale): (ck_finish, Tensor?) =
      switch product.finish {
      case .store: (CK_STORE, nil)
      case .gelu: (CK_GELU, nil)
      case .add(let scale): (CK_ADD, scale)
      }
    let outputs = product.y.shape[1]
    return ck_product(
      weight: weight, bfloat16: bfloat16, layout: layout, stride: stride, depth: depth,
      outputs: outputs, bias: ck_vector(product.bias), scale: ck_vector(scale), finish: finish,
      y: product.y.floatBase, y_stride: outputs)
  }
}

extension LinearWeight {
  /// Of panels; nil of rows.
  fileprivate var format: PackedMatrix.Format? {
    guard case .panels(let matrix) = self else { return nil }
    return matrix.format
  }
}

extension ck_vector {
  /// Valid while the tensor is alive.
  init(_ parameters: Tensor?) {
    self.init(
      elements: parameters.map { UnsafeRawPointer($0.baseAddress) },
      bfloat16: parameters?.scalarType == .bfloat16)
  }
}
