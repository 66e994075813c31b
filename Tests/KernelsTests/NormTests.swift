import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct NormTests {
  @Test(
    "RMS norm agrees with the reference",
    arguments: [(1, 1), (3, 15), (2, 16), (5, 17), (300, 260), (2, 3200), (0, 8)],
    [ScalarType.float32, .bfloat16])
  func rms(shape: (Int, Int), type: ScalarType) throws {
    let (rows, width) = shape
    var random = SeededRandom(UInt64(width))
    let x = random.tensor([rows, width], in: -3...3)
    let weight = random.tensor([width], type)
    let expected = ReferenceMath.rmsNorm(x.doubles, weight: weight.doubles, epsilon: 1e-5)
    try expectEverywhere(expected) { device in
      let y = Tensor(zeros: .float32, x.shape)
      try device.rmsNorm(x, weight: weight, epsilon: 1e-5, into: y)
      return y
    }
  }

  @Test(
    "layer norm agrees with the reference, far from zero too",
    arguments: [(1, 1), (3, 15), (2, 16), (5, 17), (300, 260), (2, 12800), (0, 8)],
    [(ScalarType.float32, Float(0)), (.bfloat16, 0), (.float32, 30)])
  func layer(shape: (Int, Int), kind: (ScalarType, Float)) throws {
    let (rows, width) = shape
    var random = SeededRandom(UInt64(width))
    let x = random.tensor([rows, width], in: kind.1 - 2...kind.1 + 2)
    let weight = random.tensor([width], kind.0)
    let bias = random.tensor([width], kind.0)
    let expected = ReferenceMath.layerNorm(
      x.doubles, weight: weight.doubles, bias: bias.doubles, epsilon: 1e-5)
    // Of a mean of 30, float32 keeps 2e-6.
    try expectEverywhere(expected, tolerance: kind.1 == 0 ? 2e-6 : 1e-5) { device in
      let y = Tensor(zeros: .float32, x.shape)
      try device.layerNorm(x, weight: weight, bias: bias, epsilon: 1e-5, into: y)
      return y
    }
  }

  @Test("a row has the same bits alone and among others, in place and not")
  func rowsAreIndependent() throws {
    var random = SeededRandom(11)
    let x = random.tensor([70, 1030])
    let weight = random.tensor([1030])
    for device in TestDevices.all {
      let rms = Tensor(zeros: .float32, x.shape)
      try device.rmsNorm(x, weight: weight, epsilon: 1e-6, into: rms)
      let layer = Tensor(zeros: .float32, x.shape)
      try device.layerNorm(x, weight: weight, bias: weight, epsilon: 1e-6, into: layer)
      for row in [0, 1, 33, 69] {
        let alone = Tensor(x.rows(row..<row + 1).floats, [1, 1030])
        try device.rmsNorm(alone, weight: weight, epsilon: 1e-6, into: alone)
        #expect(alone.hasSameBits(as: rms[row]))
        let other = Tensor(x.rows(row..<row + 1).floats, [1, 1030])
        try device.layerNorm(other, weight: weight, bias: weight, epsilon: 1e-6, into: other)
        #expect(other.hasSameBits(as: layer[row]))
      }
    }
  }

  @Test("refuse shapes that do not fit")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    let x = Tensor(zeros: .float32, [2, 3])
    let three = Tensor(zeros: .float32, [3])
    let four = Tensor(zeros: .float32, [4])
    #expect(throws: TensorError.self) {
      try device.rmsNorm(x, weight: four, epsilon: 0, into: x)
    }
    #expect(throws: TensorError.self) {
      try device.rmsNorm(x, weight: three, epsilon: 0, into: Tensor(zeros: .float32, [3, 2]))
    }
    #expect(throws: TensorError.self) {
      try device.layerNorm(x, weight: three, bias: four, epsilon: 0, into: x)
    }
    #expect(throws: TensorError.self) {
      try device.layerNorm(three, weight: three, bias: three, epsilon: 0, into: three)
    }
  }
}
