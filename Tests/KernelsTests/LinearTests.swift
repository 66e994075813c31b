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
    "every sum is a chain in blocks of 256 inputs, whatever the weight's order in memory",
    arguments: [
      (1, 1, 1), (1, 513, 40), (2, 255, 17), (3, 256, 15), (4, 257, 16), (5, 300, 5),
      (6, 512, 33), (7, 16, 1), (8, 1025, 18), (13, 15, 50), (14, 513, 64), (15, 17, 31),
      (16, 1, 16), (17, 258, 2), (29, 8, 130), (257, 20, 24), (345, 257, 48), (1025, 5, 3),
      (3, 0, 4),
    ])
  func definition(rows: Int, depth: Int, outputs: Int) throws {
    for type in [ScalarType.float32, .bfloat16] {
      var random = SeededRandom(UInt64(rows + 3 * depth + 7 * outputs))
      let x = random.tensor([rows, depth])
      let weight = random.tensor([outputs, depth], type)
      let bias = random.tensor([outputs], type)
      let expected = Self.definition(x, weight, bias)
      for device in TestDevices.all {
        let packed = try device.pack(weight)
        #expect(packed.format == (type == .float32 ? .float32 : .bfloat16))
        for weight in [LinearWeight.rows(weight), .panels(packed)] {
          let y = Tensor([Float](repeating: .nan, count: rows * outputs), [rows, outputs])
          try device.linear(x, [LinearProduct(weight, bias: bias, into: y)])
          #expect(y.hasSameBits(as: expected), "\(device.instructionSet), \(type)")
        }
      }
    }
  }

  @Test(
    "rounded inputs meet packed halves in pairs, the second of each first, and floats not at all",
    arguments: [
      (1, 1, 1), (1, 513, 70), (2, 255, 17), (5, 300, 5), (14, 513, 64), (17, 258, 2),
      (29, 8, 130), (257, 20, 24), (345, 257, 48), (3, 0, 4),
    ])
  func rounded(rows: Int, depth: Int, outputs: Int) throws {
    var random = SeededRandom(UInt64(rows + 3 * depth + 7 * outputs))
    let x = random.tensor([rows, depth])
    let bias = random.tensor([outputs], .bfloat16)
    let (halves, floats) = (
      random.tensor([outputs, depth], .bfloat16), random.tensor([outputs, depth])
    )
    let expected = Self.definition(
      Tensor(x.floats.map(Self.rounded), x.shape), halves, bias, secondFirst: true)
    let exact = Self.definition(x, floats, bias)
    for device in TestDevices.all {
      let device = CPUDevice(pool: device.pool, kernels: device.kernels, roundsInputs: true)
      let y = Tensor([Float](repeating: .nan, count: rows * outputs), [rows, outputs])
      let z = Tensor([Float](repeating: .nan, count: rows * outputs), [rows, outputs])
      try device.linear(
        x,
        [
          LinearProduct(.panels(device.pack(floats)), bias: bias, into: z),
          LinearProduct(.panels(device.pack(halves)), bias: bias, into: y),
        ])
      #expect(y.hasSameBits(as: expected), "\(device.instructionSet)")
      #expect(z.hasSameBits(as: exact), "\(device.instructionSet)")
    }
  }

  @Test("rounding is to nearest, ties to even, and keeps what is no number")
  func roundedInput() throws {
    let cases: [(Float, Float)] = [
      (1.00390625, 1), (1.01171875, 1.015625), (1.004, 1.0078125), (-2.0079, -2.015625),
      (3.4e38, .infinity), (-.infinity, -.infinity), (0x1p-126, 0x1p-126), (0, 0),
    ]
    var random = SeededRandom(1)
    let weight = random.tensor([1, 1], .bfloat16, in: 1...1)
    for device in TestDevices.all {
      let device = CPUDevice(pool: device.pool, kernels: device.kernels, roundsInputs: true)
      let y = Tensor(zeros: .float32, [cases.count + 1, 1])
      try device.linear(
        Tensor(cases.map(\.0) + [.nan], [cases.count + 1, 1]),
        [LinearProduct(.panels(device.pack(weight)), into: y)])
      #expect(Array(y.floats.prefix(cases.count)) == cases.map(\.1), "\(device.instructionSet)")
      #expect(y.floats[cases.count].isNaN)
    }
  }

  private static func rounded(_ value: Float) -> Float {
    let bits = value.bitPattern
    return Float(bitPattern: (bits &+ 0x7fff &+ (bits >> 16 & 1)) & 0xffff_0000)
  }

  private static func definition(
    _ x: Tensor, _ weight: Tensor, _ bias: Tensor, secondFirst: Bool = false
  ) -> Tensor {
    let (rows, depth, outputs) = (x.shape[0], x.shape[1], weight.shape[0])
    let (inputs, weights) = (x.floats, weight.doubles.map { Float($0) })
    let biases = bias.doubles.map { Float($0) }
    var sums: [Float] = []
    for row in 0..<rows {
      for output in 0..<outputs {
        var sum: Float?
        for first in stride(from: 0, to: depth, by: 256) {
          var chain: Float = 0
          for place in first..<min(first + 256, depth) {
            let partner = place ^ 1
            let k = secondFirst && partner < depth ? partner : place
            chain = chain.addingProduct(inputs[row * depth + k], weights[output * depth + k])
          }
          sum = sum.map { $0 + chain } ?? chain
        }
        sums.append((sum ?? 0) + biases[output])
      }
    }
    return Tensor(sums, [rows, outputs])
  }

  @Test("a finish gives the bits of the operation after the product", arguments: [1, 3, 15, 70])
  func finishes(rows: Int) throws {
    var random = SeededRandom(11)
    let (depth, outputs) = (300, 37)
    let x = random.tensor([rows, depth])
    let before = random.tensor([rows, outputs])
    for type in [ScalarType.float32, .bfloat16] {
      let weight = random.tensor([outputs, depth], type)
      for bias in [nil, random.tensor([outputs]), random.tensor([outputs], .bfloat16)] {
        for device in TestDevices.all {
          let product = Tensor(zeros: .float32, before.shape)
          try device.linear(x, weight: weight, bias: bias, into: product)
          func expect(
            _ finish: LinearProduct.Finish, _ operation: (Tensor) throws -> Tensor
          ) throws {
            let expected = try operation(Tensor(product.floats, product.shape))
            for weight in [LinearWeight.rows(weight), .panels(try device.pack(weight))] {
              let y = Tensor(before.floats, before.shape)
              try device.linear(x, [LinearProduct(weight, bias: bias, finish: finish, into: y)])
              #expect(y.hasSameBits(as: expected), "\(finish), \(device.instructionSet)")
            }
          }
          try expect(.store) { $0 }
          try expect(.gelu) {
            try device.gelu($0)
            return $0
          }
          for scale in [nil, random.tensor([outputs]), random.tensor([outputs], .bfloat16)] {
            try expect(.add(scale: scale)) {
              let y = Tensor(before.floats, before.shape)
              try device.addScaled($0, scale: scale, to: y)
              return y
            }
          }
        }
      }
    }
  }

  @Test("products of one input have the same bits together as alone", arguments: [1, 4, 16, 97])
  func together(rows: Int) throws {
    var random = SeededRandom(13)
    let x = random.tensor([rows, 270])
    let weights = [(64, ScalarType.bfloat16), (5, .float32), (0, .float32), (133, .bfloat16)].map {
      random.tensor([$0.0, 270], $0.1)
    }
    for device in TestDevices.all {
      func results() -> [Tensor] {
        weights.map {
          Tensor([Float](repeating: 3, count: rows * $0.shape[0]), [rows, $0.shape[0]])
        }
      }
      let finishes: [LinearProduct.Finish] = [.store, .gelu, .store, .add(scale: nil)]
      for packing in [false, true] {
        let (alone, together) = (results(), results())
        func product(_ index: Int, into y: Tensor) throws -> LinearProduct {
          let weight = weights[index]
          return LinearProduct(
            packing && index > 0 ? .panels(try device.pack(weight)) : .rows(weight),
            finish: finishes[index], into: y)
        }
        for index in weights.indices {
          try device.linear(x, [product(index, into: alone[index])])
        }
        try device.linear(x, weights.indices.map { try product($0, into: together[$0]) })
        for (a, b) in zip(alone, together) { #expect(a.hasSameBits(as: b)) }
      }
      try device.linear(x, [])
    }
  }

  @Test("what is not a number stays in its row and output", arguments: [1, 3, 40])
  func notNumbers(rows: Int) throws {
    var random = SeededRandom(17)
    let x = random.tensor([rows, 40])
    let weight = random.tensor([21, 40])
    x[rows - 1].withElements(of: Float.self) { $0[39] = .infinity }
    weight[20].withElements(of: Float.self) { $0[0] = .nan }
    for device in TestDevices.all {
      for weight in [LinearWeight.rows(weight), .panels(try device.pack(weight))] {
        let y = Tensor(zeros: .float32, [rows, 21])
        try device.linear(x, [LinearProduct(weight, into: y)])
        for (index, value) in y.floats.enumerated() {
          let (row, output) = index.quotientAndRemainder(dividingBy: 21)
          #expect(value.isNaN == (output == 20))
          if output < 20 { #expect(value.isFinite == (row < rows - 1)) }
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
      let weight = Tensor(zeros: .float32, [2, 0])
      let x = Tensor(zeros: .float32, [rows, 0])
      try device.linear(x, weight: weight, bias: bias, into: y)
      #expect(y.floats == (0..<rows).flatMap { _ in [1, -2] as [Float] })
      try device.linear(
        x, [LinearProduct(.panels(try device.pack(weight)), bias: bias, into: y)])
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
    for rows in [1, 3, 20] {
      for device in TestDevices.all {
        for finish in [LinearProduct.Finish.store, .gelu, .add(scale: nil)] {
          let weight = random.tensor([67, 31], .bfloat16)
          for weight in [LinearWeight.rows(weight), .panels(try device.pack(weight))] {
            let y = Tensor([Float](repeating: 7, count: (rows + 2) * 67), [rows + 2, 67])
            try device.linear(
              random.tensor([rows, 31]),
              [LinearProduct(weight, finish: finish, into: y.rows(1..<rows + 1))])
            #expect(y.rows(0..<1).floats.allSatisfy { $0 == 7 })
            #expect(y.rows(rows + 1..<rows + 2).floats.allSatisfy { $0 == 7 })
          }
        }
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
