import CKernels
import COpenBLAS
import Tensors

/// Gradients of y [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N], by OpenBLAS in blocks whose size
/// depends on the shapes alone, so that the sums do not depend on the number of threads.
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
    guard outputs > 0 else { return adding ? () : try device.clear(dX) }

    OpenBLAS.useOneThread()
    let blocks = Blocks(rows: rows, columns: depth)
    let halves = weight.scalarType == .bfloat16
    let (from, into, weights) = (dY.floatBase, dX.floatBase, weight.baseAddress)
    device.pool.parallel(blocks.count) { tile, scratch in
      let (top, first) = (blocks.rows(tile), blocks.columns(tile))
      // Outputs are taken in panels, so that widened weights stay in the cache.
      for panel in stride(from: 0, to: outputs, by: panelOutputs) {
        let count = min(panelOutputs, outputs - panel)
        var block = weights.assumingMemoryBound(to: Float.self) + panel * depth + first.lowerBound
        var line = depth
        if halves {
          let narrow = weights.assumingMemoryBound(to: UInt16.self)
          let widened = scratch.floats(count * first.count)
          for output in 0..<count {
            device.kernels.widen(
              narrow + (panel + output) * depth + first.lowerBound, first.count,
              widened + output * first.count)
          }
          (block, line) = (widened, first.count)
        }
        cblas_sgemm(
          CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(top.count), Int32(first.count),
          Int32(count), 1, from + top.lowerBound * outputs + panel, Int32(outputs), block,
          Int32(line), adding || panel > 0 ? 1 : 0,
          into + top.lowerBound * depth + first.lowerBound,
          Int32(depth))
      }
    }
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
    guard let dWeight else { return }
    OpenBLAS.useOneThread()
    let blocks = Blocks(rows: outputs, columns: depth)
    let (inputs, from, into) = (x.floatBase, dY.floatBase, dWeight.floatBase)
    device.pool.parallel(blocks.count) { tile, _ in
      let (top, first) = (blocks.rows(tile), blocks.columns(tile))
      cblas_sgemm(
        CblasRowMajor, CblasTrans, CblasNoTrans, Int32(top.count), Int32(first.count),
        Int32(rows), 1, from + top.lowerBound, Int32(outputs), inputs + first.lowerBound,
        Int32(depth), 1, into + top.lowerBound * depth + first.lowerBound, Int32(depth))
    }
    withExtendedLifetime((x, dY, dWeight)) {}
  }

  private static let panelOutputs = 1024

  /// A cut of a result into blocks: large ones pack little, yet a small result gives every thread
  /// some.
  private struct Blocks {
    private let rowCount: Int
    private let columnCount: Int
    private let height: Int
    private let width: Int
    private let across: Int

    init(rows: Int, columns: Int) {
      var (height, width) = (512, 512)
      func count() -> Int {
        ((rows + height - 1) / height) * ((columns + width - 1) / width)
      }
      while count() < 16, height > 64 || width > 64 {
        if height >= width { height /= 2 } else { width /= 2 }
      }
      rowCount = rows
      columnCount = columns
      self.height = height
      self.width = width
      across = (columns + width - 1) / width
    }

    var count: Int { (rowCount + height - 1) / height * across }

    func rows(_ block: Int) -> Range<Int> {
      let first = block / across * height
      return first..<min(first + height, rowCount)
    }

    func columns(_ block: Int) -> Range<Int> {
      let first = block % across * width
      return first..<min(first + width, columnCount)
    }
  }
}
