import Support
import Tensors

/// Quantised weights and products as their definitions read: whole numbers in Int, one fused
/// multiply-add a block.
enum QuantisedReference {
  /// A panel's numbers at one output and block: w = factor · numbers.
  struct Block {
    var factor: Float
    var numbers: [Int]
  }

  static func block(_ matrix: PackedMatrix, output: Int, block: Int) -> Block {
    let bytes = Bytes(matrix, panel: output / 16)
    let (j, blocks) = (output % 16, matrix.depth / 32)
    switch matrix.format {
    case .q8:
      let numbers = (0..<32).map { k in
        Int(bytes[((block * 8 + k / 4) * 16 + j) * 4 + k % 4]) - 128
      }
      let factor = half(bytes.word(at: blocks * 512 + (block * 16 + j) * 2))
      return Block(factor: factor, numbers: numbers)
    case .q4:
      let word = bytes.word(at: blocks * 256 + (block * 16 + j) * 2)
      let upper = Int(bytes[blocks * 288 + block * 8 + j % 8]) >> (j < 8 ? 0 : 4) & 15
      let zero = upper * 16 + Int(word & 15)
      let numbers = (0..<32).map { k in
        let pair = Int(bytes[((block * 4 + k % 16 / 4) * 16 + j) * 4 + k % 4])
        return (k < 16 ? pair & 15 : pair >> 4) * 16 - zero
      }
      return Block(factor: half(word & 0xFFF0) / 16, numbers: numbers)
    case .float32, .bfloat16: preconditionFailure("not quantised")
    }
  }

  static func rows(_ matrix: PackedMatrix) -> [Float] {
    (0..<matrix.outputs).flatMap { output in
      (0..<matrix.depth / 32).flatMap { index in
        let block = block(matrix, output: output, block: index)
        return block.numbers.map { block.factor * Float($0) }
      }
    }
  }

  /// x [T, K] · weightᵀ [N, K] + bias [N].
  static func linear(_ x: Tensor, _ matrix: PackedMatrix, bias: Tensor?) -> Tensor {
    let (rows, depth, inputs) = (x.shape[0], x.shape[1], x.floats)
    let activations = (0..<rows * depth / 32).map { index -> Block in
      quantise(Array(inputs[index * 32..<index * 32 + 32]))
    }
    let biases = bias?.floats
    var y = [Float](repeating: 0, count: rows * matrix.outputs)
    for output in 0..<matrix.outputs {
      let weights = (0..<depth / 32).map { block(matrix, output: output, block: $0) }
      for row in 0..<rows {
        var sum: Float = 0
        for (index, weight) in weights.enumerated() {
          let activation = activations[row * weights.count + index]
          var product = 0
          for k in 0..<32 { product += weight.numbers[k] * activation.numbers[k] }
          sum.addProduct(Float(product), weight.factor * activation.factor)
        }
        y[row * matrix.outputs + output] = biases.map { sum + $0[output] } ?? sum
      }
    }
    return Tensor(y, [rows, matrix.outputs])
  }

  /// Activations: steps of max|x| / 127.
  static func quantise(_ x: [Float]) -> Block {
    guard x.allSatisfy(\.isFinite) else {
      return Block(factor: .nan, numbers: [Int](repeating: 0, count: x.count))
    }
    let greatest = x.map(\.magnitude).max() ?? 0
    guard greatest >= Float(sign: .plus, exponent: -100, significand: 1) else {
      return Block(factor: 0, numbers: [Int](repeating: 0, count: x.count))
    }
    let factor = 127 / greatest
    return Block(
      factor: greatest / 127, numbers: x.map { Int(($0 * factor).rounded(.toNearestOrEven)) })
  }

  static func half(_ bits: UInt16) -> Float {
    let (exponent, fraction) = (Int(bits >> 10 & 31), Float(bits & 1023))
    let sign: Float = bits >> 15 == 0 ? 1 : -1
    if exponent == 31 { return fraction == 0 ? sign * .infinity : .nan }
    if exponent == 0 { return sign * fraction * Float(sign: .plus, exponent: -24, significand: 1) }
    return sign * (1024 + fraction) * Float(sign: .plus, exponent: exponent - 25, significand: 1)
  }

  /// Panels of any numbers, and of scales from float16's smallest to `greatest`.
  static func matrix(
    _ format: PackedMatrix.Format, outputs: Int, depth: Int, greatest: UInt16 = 0x3C00,
    random: inout SeededRandom, value: (inout SeededRandom) -> UInt8
  ) throws -> PackedMatrix {
    guard let panelBytes = format.panelBytes(depth: depth) else {
      throw TensorError.invalidShape([outputs, depth])
    }
    let panels = Tensor(zeros: .uint8, [PackedMatrix.panelCount(outputs), panelBytes])
    let values = depth / 32 * (format == .q8 ? 512 : 256)
    panels.withElements(of: UInt8.self) { bytes in
      for panel in 0..<panels.shape[0] {
        let base = panel * panelBytes
        for i in 0..<values { bytes[base + i] = value(&random) }
        for i in 0..<depth / 2 {
          let word = UInt16.random(in: 1...greatest, using: &random)
          bytes[base + values + 2 * i] = UInt8(word & 255)
          bytes[base + values + 2 * i + 1] = UInt8(word >> 8)
        }
        guard format == .q4 else { continue }
        for i in 0..<depth / 4 { bytes[base + values + depth + i] = value(&random) }
      }
    }
    return try PackedMatrix(format, outputs: outputs, depth: depth, panels: panels)
  }

  private struct Bytes {
    let bytes: [UInt8]

    init(_ matrix: PackedMatrix, panel: Int) {
      bytes = matrix.panels.rows(panel..<panel + 1).withElements(of: UInt8.self) { Array($0) }
    }

    subscript(index: Int) -> UInt8 { bytes[index] }

    func word(at index: Int) -> UInt16 { UInt16(bytes[index]) | UInt16(bytes[index + 1]) << 8 }
  }
}
