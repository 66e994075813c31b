import COpenBLAS
import Support
import Tensors
import Testing

@testable import Kernels

/// Products and their gradients beside OpenBLAS's, which nobody here wrote.
@Suite(.serialized) struct BLASTests {
  static let shapes = [(1, 1, 1), (1, 300, 33), (3, 17, 5), (16, 256, 48), (65, 530, 70)]

  /// Sums in another order differ by some roundings of the largest.
  private let tolerance = 4e-6

  init() { openblas_set_num_threads(1) }

  /// [rows, columns] of a · b, either of which may be given transposed.
  private func product(
    _ a: Tensor, aTransposed: Bool = false, _ b: Tensor,
    bTransposed: Bool = false, rows: Int, depth: Int, columns: Int
  ) -> [Double] {
    let (left, right) = (a.floats, b.floats)
    var result = [Float](repeating: 0, count: rows * columns)
    cblas_sgemm(
      CblasRowMajor, aTransposed ? CblasTrans : CblasNoTrans,
      bTransposed ? CblasTrans : CblasNoTrans, Int32(rows), Int32(columns), Int32(depth), 1, left,
      Int32(a.shape[1]), right, Int32(b.shape[1]), 0, &result, Int32(columns))
    return result.map { Double($0) }
  }

  @Test(arguments: shapes)
  func `A linear layer is OpenBLAS's product`(rows: Int, depth: Int, outputs: Int) throws {
    var random = SeededRandom(UInt64(rows + depth + outputs))
    let x = random.tensor([rows, depth])
    let weight = random.tensor([outputs, depth])
    let expected = product(
      x, weight, bTransposed: true, rows: rows, depth: depth, columns: outputs)
    try expectEverywhere(expected, tolerance: tolerance) { device in
      let y = Tensor(zeros: .float32, [rows, outputs])
      try device.linear(x, weight: weight, bias: nil, into: y)
      return y
    }
  }

  @Test(arguments: shapes)
  func `Its gradients are OpenBLAS's products`(rows: Int, depth: Int, outputs: Int) throws {
    var random = SeededRandom(UInt64(rows + 2 * depth + outputs))
    let x = random.tensor([rows, depth])
    let dY = random.tensor([rows, outputs])
    let weight = random.tensor([outputs, depth])
    try expectEverywhere(
      product(dY, weight, rows: rows, depth: outputs, columns: depth), tolerance: tolerance
    ) { device in
      let dX = Tensor(zeros: .float32, [rows, depth])
      try device.linearInputGradient(dY: dY, weight: weight, adding: false, into: dX)
      return dX
    }
    try expectEverywhere(
      product(dY, aTransposed: true, x, rows: outputs, depth: rows, columns: depth),
      tolerance: tolerance
    ) { device in
      let dWeight = Tensor(zeros: .float32, [outputs, depth])
      try device.linearWeightGradient(x: x, dY: dY, weight: dWeight, bias: nil)
      return dWeight
    }
  }
}
