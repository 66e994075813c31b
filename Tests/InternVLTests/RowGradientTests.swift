import Kernels
import Support
import Tensors
import Testing

@testable import InternVL

/// The gradient of an embedding table of which only the rows of tokens are held.
@Suite struct RowGradientTests {
  private func rows(_ count: Int, _ first: Int) -> Tensor {
    Tensor((0..<count * 3).map { Float(first + $0) / 7 }, [count, 3])
  }

  @Test("Rows add up as in a whole gradient, however many there come to be")
  func sums() throws {
    let device = try CPUDevice(threads: 2)
    let gradient = RowGradient([50, 3])
    let whole = Tensor(zeros: .float32, [50, 3])
    for step in 0..<2 {
      let calls: [[Int32]] = [[4], [9, 4, -1, 9], (0..<50).map { 49 - $0 }, [], [4, 4]]
      for (index, ids) in calls.enumerated() {
        let dY = rows(ids.count, 10 * index + step)
        try gradient.add(dY, ids: ids, on: device)
        try device.embedGradient(dY: dY, ids: ids, into: whole)
        #expect(gradient.value.dense.bits == whole.bits)
      }
      try gradient.clear(on: device)
      try device.clear(whole)
      #expect(gradient.value.dense.floats.allSatisfy { $0 == 0 })
    }
  }

  @Test("A step of few tokens holds few rows")
  func bytes() throws {
    let gradient = RowGradient([1000, 3])
    try gradient.add(rows(2, 0), ids: [999, 1], on: CPUDevice(threads: 1))
    #expect(gradient.byteCount == 2 * 3 * 4)
  }

  @Test("An id that the table does not have is refused")
  func outside() throws {
    let device = try CPUDevice(threads: 1)
    #expect(throws: KernelError.tokenOutOfRange(id: 4, rows: 4)) {
      try RowGradient([4, 3]).add(rows(1, 0), ids: [4], on: device)
    }
  }
}
