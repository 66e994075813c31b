import CKernels
import Tensors

/// Gradients of y [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N]: products again, summed as
/// ``Linear``'s are. A sum that is added to something is added as a whole.
enum LinearGradient {
  /// dX [T, K] = dY [T, N] · weight [N, K], or +=. The weight may be bfloat16.
  static func input(
    dY: Tensor, weight: Tensor, adding: Bool, into dX: Tensor, on device: CPUDevice
  ) throws {
    try weight.require(.float32, .bfloat16, what: "a linear layer's weight")
    guard weight.shape.count == 2 else {
      throw TensorError.shapeMismatch(
        what: "a linear layer's weight", expected: [weight.shape.first ?? 0, weight.count],
        found: weight.shape)
    }
    let (outputs, depth) = (weight.shape[0], weight.shape[1])
    try dY.requireRows(outputs, "the gradient of a linear layer")
    let rows = dY.shape[0]
    try dX.require(.float32, what: "the gradient of a linear layer's input")
    try dX.require(shape: [rows, depth], "the gradient of a linear layer's input")
    guard outputs > 0, dX.count > 0 else { return adding ? () : try device.clear(dX) }

    multiply(
      UnsafeRawPointer(weight.baseAddress), bfloat16: weight.scalarType == .bfloat16,
      rows: rows, depth: outputs, adding: adding, into: dX, on: device
    ) { $0.compute(dY.floatBase, stride: outputs, on: device) }
    withExtendedLifetime((dY, weight, dX)) {}
  }

  /// dWeight [N, K] += dY [T, N]ᵀ · x [T, K], dBias [N] += the sum of the rows of dY.
  static func weight(
    x: Tensor, dY: Tensor, weight dWeight: Tensor?, bias dBias: Tensor?, on device: CPUDevice
  ) throws {
    try x.requireRows(nil, "the input of a linear layer")
    let (rows, depth) = (x.shape[0], x.shape[1])
    try dY.requireRows(nil, "the gradient of a linear layer")
    let outputs = dY.shape[1]
    try dY.require(shape: [rows, outputs], "the gradient of a linear layer")
    try dWeight?.requireGradient([outputs, depth], "the gradient of a linear layer's weight")
    try dBias?.requireGradient([outputs], "the gradient of a linear layer's bias")
    guard rows > 0 else { return }

    if let dBias { device.addRows(of: dY, to: dBias) }
    guard let dWeight, dWeight.count > 0 else { return }
    multiply(
      UnsafeRawPointer(x.baseAddress), bfloat16: false, rows: outputs, depth: rows, adding: true,
      into: dWeight, on: device
    ) { $0.compute(transposeOf: dY.floatBase, stride: outputs, on: device) }
    withExtendedLifetime((x, dY, dWeight)) {}
  }

  /// result [rows, columns] = or += an input [rows, depth] times `columns` [depth, columns].
  private static func multiply(
    _ columns: UnsafeRawPointer, bfloat16: Bool, rows: Int, depth: Int, adding: Bool,
    into result: Tensor, on device: CPUDevice, _ compute: (ProductTiles) -> Void
  ) {
    let width = result.shape[1]
    let none = ck_vector(nil)
    let product = ck_product(
      weight: columns, bfloat16: bfloat16, layout: CK_COLUMNS, stride: width, depth: depth,
      outputs: width, bias: none, scale: none, finish: adding ? CK_ADD : CK_STORE,
      y: result.floatBase, y_stride: width)
    withUnsafePointer(to: product) { product in
      compute(
        ProductTiles(UnsafeBufferPointer(start: product, count: 1), rows: rows, on: device))
    }
  }
}
