import CKernels
import Support
import Tensors
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@testable import Kernels

@Suite struct QuantiserTests {
  @Test("8 bits: weights are the nearest steps of max|w| / 127", arguments: [1, 16, 37])
  func eightBits(outputs: Int) throws {
    var random = SeededRandom(UInt64(outputs))
    let weight = random.tensor([outputs, 96], in: -0.3...0.2)
    let packed = try Quantiser.quantise(weight, as: .q8, on: try CPUDevice(threads: 2))
    let weights = weight.floats
    for output in 0..<outputs {
      for index in 0..<3 {
        let block = QuantisedReference.block(packed, output: output, block: index)
        let values = weights[output * 96 + index * 32..<output * 96 + index * 32 + 32]
        let greatest = values.map(\.magnitude).max() ?? 0
        // Within half a unit in the last place of float16.
        #expect(abs(block.factor * 127 / greatest - 1) <= 1.0 / 2048)
        for (w, number) in zip(values, block.numbers) {
          #expect(
            number == max(-127, min(127, Int((w / block.factor).rounded(.toNearestOrEven)))))
        }
      }
    }
  }

  @Test(
    "4 bits: the error is far below that of the range in fifteen steps",
    arguments: [(0, 0.0703), (1, 0.0825)])
  func fourBits(kind: Int, limit: Double) throws {
    // Normal and Laplace's numbers.
    var random = SeededRandom(11)
    let count = 64 * 512
    let values = (0..<count).map { _ -> Float in
      let u = Double.random(in: .leastNonzeroMagnitude...1, using: &random)
      let sign: Double = Bool.random(using: &random) ? 1 : -1
      if kind == 1 { return Float(0.02 * sign * -log(u)) }
      return Float(
        0.02 * (-2 * log(u)).squareRoot() * cos(.pi * Double.random(in: -1...1, using: &random)))
    }
    let weight = Tensor(values, [64, 512])
    let packed = try Quantiser.quantise(weight, as: .q4, on: try CPUDevice(threads: 2))
    let found = relativeError(QuantisedReference.rows(packed), values)
    #expect(found < limit)

    let simple = stride(from: 0, to: count, by: 32).flatMap { first -> [Float] in
      let block = values[first..<first + 32]
      let (low, high) = (min(0, block.min() ?? 0), max(0, block.max() ?? 0))
      let scale = (high - low) / 15
      let zero = (-low / scale).rounded()
      return block.map { scale * (max(0, min(15, ($0 / scale).rounded() + zero)) - zero) }
    }
    #expect(found < 0.88 * relativeError(simple, values))
  }

  @Test(
    "blocks of one sign, of one value, of zeros and of tiny numbers err by half a step at most",
    arguments: [PackedMatrix.Format.q8, .q4])
  func oddBlocks(format: PackedMatrix.Format) throws {
    var random = SeededRandom(12)
    let small = Float(sign: .plus, exponent: -16, significand: 1)
    var blocks: [[Float]] = [
      random.floats(32, in: 0.5...1), random.floats(32, in: -3 ... -1),
      [Float](repeating: 0.7, count: 32), [Float](repeating: -0.7, count: 32),
      [Float](repeating: 0, count: 32), [1000] + [Float](repeating: 0, count: 31),
      [Float](repeating: 0, count: 31) + [-1e-3], random.floats(32, in: -small...small),
      random.floats(32, in: 0...1e-30), [Float](repeating: .leastNonzeroMagnitude, count: 32),
      random.floats(32, in: -4e5...4e5), [-0.0] + [Float](repeating: 0, count: 31),
    ]
    for _ in 0..<20 { blocks.append(random.floats(32, in: -1...Float.random(in: -1...1))) }
    let weight = Tensor(blocks.flatMap { $0 }, [blocks.count, 32])
    let packed = try Quantiser.quantise(weight, as: format, on: try CPUDevice(threads: 1))
    let rows = QuantisedReference.rows(packed)
    for (index, block) in blocks.enumerated() {
      let found = Array(rows[index * 32..<index * 32 + 32])
      let (low, high) = (min(0, block.min() ?? 0), max(0, block.max() ?? 0))
      let step = format == .q8 ? max(high, -low) / 127 : (high - low) / 15
      // Float16's least steps are the least that can be.
      let unit: Float = format == .q8 ? 0x1p-24 : 0x1p-20
      let error = zip(found, block).map { Double($0 - $1) * Double($0 - $1) }.reduce(0, +)
      let limit = Double(step * 0.51 + unit)
      #expect(error <= 32 * limit * limit, "block \(index)")
      if block.allSatisfy({ $0 == 0 }) { #expect(found.allSatisfy { $0 == 0 }) }
    }
  }

  @Test(
    "panels are the same on every device, of bfloat16 and of parts",
    arguments: [PackedMatrix.Format.q8, .q4])
  func everywhere(format: PackedMatrix.Format) throws {
    var random = SeededRandom(13)
    let weight = random.tensor([53, 160], .bfloat16)
    weight.withElements(of: UInt16.self) { halves in
      for k in 0..<64 { halves[k] = 0 }
      // 2⁻³⁰ times as small.
      for k in 64..<96 where halves[k] & 0x7F80 >= 30 << 7 { halves[k] -= 30 << 7 }
    }
    var first: PackedMatrix?
    for device in TestDevices.all {
      let packed = try Quantiser.quantise(weight, as: format, on: device)
      let wide = try Quantiser.quantise(weight.widened(), as: format, on: device)
      #expect(Self.bytes(wide) == Self.bytes(packed))
      if let first { #expect(Self.bytes(packed) == Self.bytes(first), "\(device.instructionSet)") }
      first = packed
    }
    let whole = try #require(first)
    let parts = Tensor(uninitialized: .uint8, whole.panels.shape)
    parts.withElements(of: UInt8.self) { $0.update(repeating: 0xAA) }
    try Quantiser.quantise(weight.rows(0..<32), as: format, into: parts.rows(0..<2))
    try Quantiser.quantise(weight.rows(32..<53), as: format, into: parts.rows(2..<4))
    let joined = try PackedMatrix(format, outputs: 53, depth: 160, panels: parts)
    #expect(Self.bytes(joined) == Self.bytes(whole))
    // Outputs behind the last are zeros.
    let padding = try PackedMatrix(format, outputs: 64, depth: 160, panels: whole.panels)
    #expect(QuantisedReference.rows(padding)[53 * 160..<64 * 160].allSatisfy { $0 == 0 })
  }

  @Test(
    "says where a weight is that cannot be quantised",
    arguments: [PackedMatrix.Format.q8, .q4], [Float.nan, .infinity, -.infinity, 1e7])
  func refusals(format: PackedMatrix.Format, value: Float) throws {
    for threads in [1, 2] {
      let weight = Tensor(zeros: .float32, [70, 96])
      weight.withElements(of: Float.self) {
        $0[37 * 96 + 50] = value
        $0[60 * 96] = value
      }
      let device = try CPUDevice(threads: threads)
      do {
        _ = try Quantiser.quantise(weight, as: format, on: device)
        Issue.record("\(value) was quantised")
      } catch KernelError.notQuantisable(let row, let column, let found) {
        #expect(row == 37 && column == 50)
        #expect(found.bitPattern == value.bitPattern)
      }
    }
  }

  @Test("refuses types and shapes that no panel holds")
  func shapes() throws {
    let device = try CPUDevice(threads: 1)
    for weight in [
      Tensor(zeros: .int32, [2, 32]), Tensor(zeros: .float32, [32]),
      Tensor(zeros: .float32, [2, 33]),
    ] {
      #expect(throws: TensorError.self) { try Quantiser.quantise(weight, as: .q8, on: device) }
    }
    let rows = Tensor(zeros: .float32, [17, 32])
    for panels in [Tensor(zeros: .uint8, [1, 576]), Tensor(zeros: .int32, [2, 576])] {
      #expect(throws: TensorError.self) { try Quantiser.quantise(rows, as: .q8, into: panels) }
    }
  }

  private func relativeError(_ found: [Float], _ expected: [Float]) -> Double {
    let error = zip(found, expected).map { Double($0 - $1) * Double($0 - $1) }.reduce(0, +)
    return (error / expected.map { Double($0) * Double($0) }.reduce(0, +)).squareRoot()
  }

  private static func bytes(_ matrix: PackedMatrix) -> [UInt8] {
    matrix.panels.withElements(of: UInt8.self) { Array($0) }
  }
}
