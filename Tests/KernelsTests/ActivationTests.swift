import CKernels
import Support
import Tensors
import Testing

@testable import Kernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct ActivationTests {
  /// −20 … 20 in fine steps, and numbers near and far from zero.
  static let numbers: [Float] =
    (-20_000...20_000).map { Float($0) / 1000 } + [0, -0.0, 1e-30, -1e-30, 100, -100, 1e4, -1e4]

  @Test("GELU is the exact one, within 5e-7 of each value or of 1e-3")
  func gelu() throws {
    for device in TestDevices.all {
      let x = Tensor(Self.numbers, [Self.numbers.count])
      try device.gelu(x)
      let error = zip(x.doubles, Self.numbers).map { found, number in
        let expected = ReferenceMath.gelu(Double(number))
        return found.isNaN ? 1 : abs(found - expected) / max(abs(expected), 1e-3)
      }
      #expect((error.max() ?? 1) < 5e-7)
    }
  }

  @Test("GELU of very large numbers is the number or nothing, and NaN stays NaN")
  func geluLimits() throws {
    for device in TestDevices.all {
      let x = Tensor([1e30, -1e30, .infinity, .nan], [4])
      try device.gelu(x)
      #expect(Array(x.floats[..<3]) == [1e30, 0, .infinity])
      #expect(x.floats[3].isNaN)
    }
  }

  @Test(
    "GELU and SwiGLU give the same bits wherever an element stands", arguments: [1, 15, 16, 17])
  func placement(count: Int) throws {
    let device = try CPUDevice(threads: 2)
    var random = SeededRandom(1)
    let all = random.floats(40, in: -5...5)
    let whole = Tensor(all, [40])
    try device.gelu(whole)
    let gated = Tensor(all, [40])
    try device.siluMultiply(gate: gated, up: Tensor(all, [40]), into: gated)
    for start in [0, 3, 20] {
      let part = Tensor(Array(all[start..<start + count]), [count])
      try device.gelu(part)
      #expect(part.hasSameBits(as: whole.rows(start..<start + count)))
      let values = Tensor(Array(all[start..<start + count]), [count])
      let y = Tensor(zeros: .float32, [count])
      try device.siluMultiply(gate: values, up: values, into: y)
      #expect(y.hasSameBits(as: gated.rows(start..<start + count)))
    }
  }

  @Test("SwiGLU agrees with the reference, extremes included")
  func silu() throws {
    var random = SeededRandom(2)
    let gates = Self.numbers.filter { abs($0) <= 100 }
    let up = random.tensor([gates.count])
    let expected = zip(gates, up.doubles).map { ReferenceMath.silu(Double($0)) * $1 }
    try expectEverywhere(expected, tolerance: 1e-7) { device in
      let y = Tensor(zeros: .float32, [gates.count])
      try device.siluMultiply(gate: Tensor(gates, [gates.count]), up: up, into: y)
      return y
    }
  }

  @Test("the exponential is within 1.2 units in the last place, and the same in every path")
  func exponential() throws {
    var numbers: [Float] = (-86_000...88_000).map { Float($0) / 1000 }
    numbers += [0, -0.0, 1e-10, 88.7, -87.3]
    var first: [UInt32]?
    for device in TestDevices.byPath {
      var y = [Float](repeating: 0, count: numbers.count)
      device.kernels.exponential(numbers, numbers.count, &y)
      var worst = 0.0
      for (x, found) in zip(numbers, y) {
        let expected = exp(Double(x))
        worst = max(worst, abs(Double(found) - expected) / Double(Float(expected).ulp))
      }
      #expect(worst < 1.2)
      let bits = y.map(\.bitPattern)
      let same = first == nil || first == bits
      #expect(same)
      first = bits
    }
  }

  @Test("the exponential keeps NaN, and ends in 0 and infinity")
  func exponentialLimits() {
    for device in TestDevices.byPath {
      let numbers: [Float] = [.nan, -.infinity, .infinity, -1e9, 1e9, -104.5, 89]
      var y = [Float](repeating: 5, count: numbers.count)
      device.kernels.exponential(numbers, numbers.count, &y)
      #expect(y[0].isNaN)
      #expect(Array(y[1...]) == [0, .infinity, 0, .infinity, 0, .infinity])
    }
  }

  @Test("nothing to do is fine, other shapes and types are refused")
  func edges() throws {
    let device = try CPUDevice(threads: 2)
    let empty = Tensor(zeros: .float32, [0, 4])
    try device.gelu(empty)
    try device.siluMultiply(gate: empty, up: empty, into: empty)
    #expect(throws: TensorError.self) { try device.gelu(Tensor(zeros: .bfloat16, [2])) }
    let two = Tensor(zeros: .float32, [2])
    let three = Tensor(zeros: .float32, [3])
    #expect(throws: TensorError.self) {
      try device.siluMultiply(gate: two, up: three, into: two)
    }
    #expect(throws: TensorError.self) {
      try device.siluMultiply(gate: two, up: two, into: three)
    }
  }
}
