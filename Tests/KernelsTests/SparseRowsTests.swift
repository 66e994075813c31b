import Support
import Tensors
import Testing

@testable import Kernels

/// A gradient of which only some rows are held has to do exactly what the whole one does.
@Suite struct SparseRowsTests {
  /// Rows and width of the matrix, and the rows that are not zero. Blocks of sums begin within
  /// rows, and some hold none.
  static let cases: [(shape: [Int], rows: [Int])] = [
    ([5, 3], [4, 0]), ([1, 1], []), ([300, 1000], [299, 7, 100, 65]), ([3000, 96], [2500]),
    ([2, 70_000], [1]),
  ]

  private func matrix(_ shape: [Int], _ rows: [Int]) -> SparseRows {
    var random = SeededRandom(9)
    var slots = [Int32](repeating: -1, count: shape[0])
    for (slot, row) in rows.enumerated() { slots[row] = Int32(slot) }
    // One more, which is none of the matrix's.
    return SparseRows(slots: slots, rows: random.tensor([rows.count + 1, shape[1]]))
  }

  @Test("updates and sums have the bits of the whole matrix", arguments: cases)
  func bits(shape: [Int], rows: [Int]) throws {
    let gradient = matrix(shape, rows)
    var random = SeededRandom(3)
    let start = random.tensor(shape)
    for device in TestDevices.all {
      #expect(try device.sumOfSquares(gradient) == device.sumOfSquares(gradient.dense))
      func tensors() -> [Tensor] {
        [
          Tensor(start.floats, shape), Tensor(zeros: .float32, shape),
          Tensor(zeros: .float32, shape),
        ]
      }
      let (whole, sparse) = (tensors(), tensors())
      for update in 1...2 {
        let step = AdamWStep(
          learningRate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.05,
          update: update, gradientScale: 0.25)
        try device.adamW(
          whole[0], gradient: gradient.dense, firstMoment: whole[1], secondMoment: whole[2],
          step: step)
        try device.adamW(
          sparse[0], gradient: gradient, firstMoment: sparse[1], secondMoment: sparse[2],
          step: step)
      }
      for (a, b) in zip(sparse, whole) { #expect(a.hasSameBits(as: b)) }
    }
  }

  @Test("the whole matrix is zero but for the rows held")
  func dense() {
    let found = matrix([5, 3], [4, 0])
    #expect(found.shape == [5, 3])
    let held = found.rows.floats
    #expect(found.dense.floats == held[3..<6] + [Float](repeating: 0, count: 9) + held[0..<3])
  }

  @Test("a parameter of another shape is refused")
  func refusal() throws {
    let device = try CPUDevice(threads: 1)
    let (other, step) = (
      Tensor(zeros: .float32, [3, 5]),
      AdamWStep(
        learningRate: 0, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, update: 1,
        gradientScale: 1)
    )
    #expect(throws: TensorError.self) {
      try device.adamW(
        other, gradient: matrix([5, 3], [0]), firstMoment: other, secondMoment: other, step: step)
    }
  }
}
