import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct LinearTests {
  static let shapes = [
    (1, 1, 1), (1, 16, 4), (2, 17, 5), (3, 15, 2), (5, 33, 7), (7, 64, 66), (12, 100, 9),
    (13, 40, 70), (97, 530, 65), (200, 24, 3), (4, 1100, 37), (14, 1025, 5), (3, 48, 300),
  ]

  @Test("agrees with the reference and gives the same bits on every device", arguments: shapes)
  func reference(rows: Int, depth: Int, outputs: Int) throws {
    for type in [ScalarType.float32, .bfloat16] {
      for biased in [false, true] {
        var random = SeededRandom(UInt64(rows * depth + outputs))
        let x = random.tensor([rows, depth])
        let weight = random.tensor([outputs, depth], type)
        let bias = biased ? random.tensor([outputs], type) : nil
        let expected = ReferenceMath.linear(
          x.doubles, weight: weight.doubles, bias: bias?.doubles, rows: rows, depth: depth,
          outputs: outputs)
        try expectEverywhere(expected, tolerance: 4e-6) { device in
          let y = Tensor(zeros: .float32, [rows, outputs])
          try device.linear(x, weight: weight, bias: bias, into: y)
          return y
        }
      }
    }
  }

  @Test(
    "an independent row has the same bits alone, in any batch and at any place in it",
    arguments: [ScalarType.float32, .bfloat16], [(530, 70), (64, 5), (1030, 131), (7, 9)])
  func batchInvariance(type: ScalarType, shape: (Int, Int)) throws {
    let (depth, outputs) = shape
    var random = SeededRandom(3)
    let all = random.tensor([130, depth])
    let weight = random.tensor([outputs, depth], type)
    let bias = random.tensor([outputs])
    for device in TestDevices.all {
      func compute(_ rows: Range<Int>) throws -> Tensor {
        let y = Tensor(zeros: .float32, [rows.count, outputs])
        try device.linear(
          all.rows(rows), weight: weight, bias: bias, into: y)
        return y
      }
      let whole = try compute(0..<130)
      let counts = Array(1...14) + [29, 95, 96, 97]
      for count in counts {
        for start in [0, 1, 33] where start + count <= 130 {
          let part = try compute(start..<start + count)
          #expect(
            part.hasSameBits(as: whole.rows(start..<start + count)),
            "\(count) rows from \(start), \(device.instructionSet)")
        }
      }
    }
  }

  @Test("no rows, no outputs and no depth are fine")
  func empty() throws {
    let device = try CPUDevice(threads: 2)
    for rows in [0, 1, 20] {
      let bias = Tensor([1, -2], [2])
      let y = Tensor([Float](repeating: 9, count: rows * 2), [rows, 2])
      try device.linear(
        Tensor(zeros: .float32, [rows, 0]), weight: Tensor(zeros: .float32, [2, 0]), bias: bias,
        into: y)
      #expect(y.floats == (0..<rows).flatMap { _ in [1, -2] as [Float] })
    }
    try device.linear(
      Tensor(zeros: .float32, [0, 3]), weight: Tensor(zeros: .float32, [2, 3]), bias: nil,
      into: Tensor(zeros: .float32, [0, 2]))
    try device.linear(
      Tensor(zeros: .float32, [2, 3]), weight: Tensor(zeros: .float32, [0, 3]), bias: nil,
      into: Tensor(zeros: .float32, [2, 0]))
  }

  @Test("writes nothing outside its rows of a larger tensor")
  func bounds() throws {
    var random = SeededRandom(5)
    for rows in [3, 20] {
      for device in TestDevices.all {
        let y = Tensor([Float](repeating: 7, count: (rows + 2) * 67), [rows + 2, 67])
        try device.linear(
          random.tensor([rows, 31]), weight: random.tensor([67, 31], .bfloat16), bias: nil,
          into: y.rows(1..<rows + 1))
        #expect(y.rows(0..<1).floats.allSatisfy { $0 == 7 })
        #expect(y.rows(rows + 1..<rows + 2).floats.allSatisfy { $0 == 7 })
      }
    }
  }

  @Test("refuses shapes and types that do not fit")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    let x = Tensor(zeros: .float32, [2, 3])
    let weight = Tensor(zeros: .float32, [4, 3])
    let y = Tensor(zeros: .float32, [2, 4])
    func refuse(_ x: Tensor, _ weight: Tensor, _ bias: Tensor?, _ y: Tensor) {
      #expect(throws: TensorError.self) {
        try device.linear(x, weight: weight, bias: bias, into: y)
      }
    }
    refuse(Tensor(zeros: .float32, [6]), weight, nil, y)
    refuse(Tensor(zeros: .bfloat16, [2, 3]), weight, nil, y)
    refuse(x, Tensor(zeros: .float32, [4, 2]), nil, y)
    refuse(x, Tensor(zeros: .int32, [4, 3]), nil, y)
    refuse(x, Tensor(zeros: .float32, [12]), nil, y)
    refuse(x, weight, Tensor(zeros: .float32, [3]), y)
    refuse(x, weight, nil, Tensor(zeros: .float32, [4, 2]))
    refuse(x, weight, nil, Tensor(zeros: .bfloat16, [2, 4]))
  }
}
