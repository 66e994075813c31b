import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct QuantisedLinearTests {
  static let formats = [PackedMatrix.Format.q8, .q4]

  @Test(
    "is its definition, to the bit, on every device",
    arguments: formats,
    [
      (1, 32, 1), (1, 1056, 100), (2, 64, 15), (3, 96, 17), (4, 32, 100), (5, 1056, 17),
      (6, 64, 1), (7, 96, 31), (8, 1056, 15), (9, 32, 16), (10, 64, 17), (11, 96, 1), (12, 32, 33),
      (13, 64, 15), (15, 96, 16), (16, 32, 17), (17, 1056, 2), (100, 96, 20), (530, 32, 3),
    ])
  func definition(format: PackedMatrix.Format, shape: (rows: Int, depth: Int, outputs: Int)) throws
  {
    let (rows, depth, outputs) = shape
    var random = SeededRandom(UInt64(rows * depth + outputs))
    let weight = try QuantisedReference.matrix(
      format, outputs: outputs, depth: depth, random: &random
    ) { UInt8.random(in: 0...255, using: &$0) }
    let x = random.tensor([rows, depth])
    for bias in [nil, random.tensor([outputs]), random.tensor([outputs], .bfloat16)] {
      let expected = QuantisedReference.linear(x, weight, bias: bias)
      for device in TestDevices.all {
        let y = Tensor(zeros: .float32, [rows, outputs])
        try device.linear(x, [LinearProduct(.panels(weight), bias: bias, into: y)])
        #expect(
          y.hasSameBits(as: expected),
          "\(device.instructionSet), \(device.pool.threadCount) threads")
      }
    }
  }

  @Test(
    "the greatest numbers fit in the sums",
    arguments: formats,
    [(255, 1), (255, -1), (0, 1), (0, -1)] as [(UInt8, Float)])
  func extremes(format: PackedMatrix.Format, value: (byte: UInt8, x: Float)) throws {
    var random = SeededRandom(1)
    // Of q8 the byte 0 is no weight's; of q4 all numbers 15 with zeros of 255, or all 0.
    let byte = format == .q8 ? max(value.byte, 1) : value.byte
    let weight = try QuantisedReference.matrix(format, outputs: 33, depth: 64, random: &random) {
      _ in byte
    }
    for rows in [1, 3, 8, 9] {
      for mixed in [false, true] {
        let elements = (0..<rows * 64).map { mixed && $0 % 2 == 1 ? -value.x : value.x }
        let x = Tensor(elements, [rows, 64])
        try expectDefinition(x, weight)
      }
    }
    // Numbers and zeros of opposite extremes.
    guard format == .q4 else { return }
    var calls = 0
    let opposite = try QuantisedReference.matrix(format, outputs: 16, depth: 64, random: &random) {
      _ in
      calls += 1
      return calls <= 512 ? value.byte : 255 - value.byte
    }
    try expectDefinition(Tensor([Float](repeating: value.x, count: 192), [3, 64]), opposite)
  }

  @Test("scales may be float16's smallest and greatest", arguments: formats)
  func scales(format: PackedMatrix.Format) throws {
    for greatest in [UInt16(0x000F), 0x03FF, 0x7BFF] {
      var random = SeededRandom(UInt64(greatest))
      let weight = try QuantisedReference.matrix(
        format, outputs: 40, depth: 96, greatest: greatest, random: &random
      ) { UInt8.random(in: 1...255, using: &$0) }
      try expectDefinition(random.tensor([5, 96]), weight)
    }
  }

  @Test("blocks of zeros and of tiny numbers count as zero", arguments: formats)
  func zeros(format: PackedMatrix.Format) throws {
    var random = SeededRandom(3)
    let weight = try QuantisedReference.matrix(format, outputs: 20, depth: 96, random: &random) {
      UInt8.random(in: 1...255, using: &$0)
    }
    let x = random.tensor([9, 96])
    x.withElements(of: Float.self) { elements in
      for k in 0..<32 { elements[k] = 0 }
      for k in 32..<64 { elements[k] = Float.leastNonzeroMagnitude * Float(k) }
      for k in 96..<192 { elements[k] = -0.0 }
      // The least that counts, and the next below.
      let least = Float(sign: .plus, exponent: -100, significand: 1)
      elements[192] = -least
      for k in 193..<224 { elements[k] = 0 }
      for k in 224..<256 { elements[k] = least.nextDown }
    }
    try expectDefinition(x, weight)
    let second = QuantisedReference.linear(x, weight, bias: nil).rows(1..<2)
    #expect(second.floats.allSatisfy { $0 == 0 })
  }

  @Test(
    "a row with a NaN or an infinity is NaN, its neighbours are not", arguments: formats,
    [Float.nan, .infinity, -.infinity])
  func notFinite(format: PackedMatrix.Format, value: Float) throws {
    var random = SeededRandom(4)
    let weight = try QuantisedReference.matrix(format, outputs: 20, depth: 96, random: &random) {
      UInt8.random(in: 1...255, using: &$0)
    }
    for rows in [1, 3, 9] {
      let x = random.tensor([rows, 96])
      let expected = QuantisedReference.linear(x, weight, bias: nil)
      x.withElements(of: Float.self) { $0[(rows / 2) * 96 + 50] = value }
      for device in TestDevices.all {
        let y = Tensor(zeros: .float32, [rows, 20])
        try device.linear(x, [LinearProduct(.panels(weight), into: y)])
        for row in 0..<rows {
          let found = y.rows(row..<row + 1)
          if row == rows / 2 {
            #expect(found.floats.allSatisfy { $0.isNaN }, "\(device.instructionSet)")
          } else {
            #expect(found.hasSameBits(as: expected.rows(row..<row + 1)))
          }
        }
      }
    }
  }

  @Test("a row has the same bits alone, in any batch and at any place in it", arguments: formats)
  func batchInvariance(format: PackedMatrix.Format) throws {
    var random = SeededRandom(5)
    let weight = try QuantisedReference.matrix(format, outputs: 70, depth: 160, random: &random) {
      UInt8.random(in: 1...255, using: &$0)
    }
    let all = random.tensor([600, 160])
    let bias = random.tensor([70])
    for device in TestDevices.all {
      func compute(_ rows: Range<Int>) throws -> Tensor {
        let y = Tensor(zeros: .float32, [rows.count, 70])
        try device.linear(all.rows(rows), [LinearProduct(.panels(weight), bias: bias, into: y)])
        return y
      }
      let whole = try compute(0..<600)
      for count in Array(1...18) + [25, 48, 100, 599] {
        for start in [0, 1, 33] where start + count <= 600 {
          let part = try compute(start..<start + count)
          #expect(
            part.hasSameBits(as: whole.rows(start..<start + count)),
            "\(count) rows from \(start), \(device.instructionSet)")
        }
      }
    }
  }

  @Test("several weights of any format share an input", arguments: [1, 7, 50])
  func groups(rows: Int) throws {
    var random = SeededRandom(6)
    let x = random.tensor([rows, 96])
    let weights: [LinearWeight] = [
      .panels(try matrix(.q4, 35, 96, &random)), .rows(random.tensor([20, 96], .bfloat16)),
      .panels(try matrix(.q8, 48, 96, &random)), .panels(try matrix(.q4, 1, 96, &random)),
      .panels(try matrix(.q8, 0, 96, &random)), .panels(try matrix(.q8, 17, 96, &random)),
    ]
    let scale = random.tensor([48])
    for device in TestDevices.all {
      func products() -> [LinearProduct] {
        weights.enumerated().map { index, weight in
          LinearProduct(
            weight, finish: index == 2 ? .add(scale: scale) : index == 3 ? .gelu : .store,
            into: Tensor(
              [Float](repeating: 0.5, count: rows * weight.shape[0]), [rows, weight.shape[0]]))
        }
      }
      let (together, alone) = (products(), products())
      try device.linear(x, together)
      for product in alone { try device.linear(x, [product]) }
      for (a, b) in zip(together, alone) { #expect(a.y.hasSameBits(as: b.y)) }
    }
  }

  @Test("finishes give the bits of the separate operations", arguments: formats, [1, 5, 33])
  func finishes(format: PackedMatrix.Format, rows: Int) throws {
    var random = SeededRandom(7)
    let weight = LinearWeight.panels(try matrix(format, 37, 64, &random))
    let (x, bias) = (random.tensor([rows, 64]), random.tensor([37], .bfloat16))
    let stream = random.tensor([rows, 37])
    for device in TestDevices.all {
      let product = Tensor(zeros: .float32, [rows, 37])
      try device.linear(x, [LinearProduct(weight, bias: bias, into: product)])

      let activated = Tensor(zeros: .float32, [rows, 37])
      try device.linear(x, [LinearProduct(weight, bias: bias, finish: .gelu, into: activated)])
      for scale in [nil, random.tensor([37]), random.tensor([37], .bfloat16)] {
        let expected = stream.widened()
        try device.addScaled(product, scale: scale, to: expected)
        let found = stream.widened()
        try device.linear(
          x, [LinearProduct(weight, bias: bias, finish: .add(scale: scale), into: found)])
        #expect(found.hasSameBits(as: expected))
      }
      try device.gelu(product)
      #expect(activated.hasSameBits(as: product))
    }
  }

  @Test("writes nothing outside its rows of a larger tensor", arguments: formats, [1, 8, 13])
  func bounds(format: PackedMatrix.Format, rows: Int) throws {
    var random = SeededRandom(8)
    let weight = try matrix(format, 67, 32, &random)
    for device in TestDevices.all {
      let y = Tensor([Float](repeating: 7, count: (rows + 2) * 67), [rows + 2, 67])
      try device.linear(
        random.tensor([rows, 32]), [LinearProduct(.panels(weight), into: y.rows(1..<rows + 1))])
      #expect(y.rows(0..<1).floats.allSatisfy { $0 == 7 })
      #expect(y.rows(rows + 1..<rows + 2).floats.allSatisfy { $0 == 7 })
    }
  }

  @Test("no rows, no outputs and no depth are fine", arguments: formats)
  func empty(format: PackedMatrix.Format) throws {
    var random = SeededRandom(9)
    let device = try CPUDevice(threads: 2)
    let y = Tensor([Float](repeating: 9, count: 6), [3, 2])
    let flat = LinearWeight.panels(try matrix(format, 2, 0, &random))
    try device.linear(
      Tensor(zeros: .float32, [3, 0]),
      [LinearProduct(flat, bias: Tensor([1, -2], [2]), into: y)])
    #expect(y.floats == [1, -2, 1, -2, 1, -2])
    try device.linear(
      Tensor(zeros: .float32, [0, 32]),
      [
        LinearProduct(
          .panels(try matrix(format, 2, 32, &random)), into: Tensor(zeros: .float32, [0, 2]))
      ])
  }

  @Test("rows of a quantised table are its weights", arguments: formats)
  func embedding(format: PackedMatrix.Format) throws {
    var random = SeededRandom(10)
    let table = try matrix(format, 37, 96, &random)
    let expected = QuantisedReference.rows(table)
    let ids: [Int32] = [36, 0, 7, 8, 15, 16, 7]
    for device in TestDevices.all {
      let y = Tensor(zeros: .float32, [ids.count, 96])
      try device.embed(ids, table: .panels(table), into: y)
      let wanted = ids.flatMap { expected[Int($0) * 96..<Int($0) * 96 + 96] }
      #expect(y.hasSameBits(as: Tensor(wanted, [ids.count, 96])))
      #expect(throws: KernelError.tokenOutOfRange(id: 37, rows: 37)) {
        try device.embed([37], table: .panels(table), into: Tensor(zeros: .float32, [1, 96]))
      }
    }
    #expect(Quantiser.rows(3..<20, of: table).floats == Array(expected[3 * 96..<20 * 96]))
  }

  private func matrix(
    _ format: PackedMatrix.Format, _ outputs: Int, _ depth: Int, _ random: inout SeededRandom
  ) throws -> PackedMatrix {
    try QuantisedReference.matrix(format, outputs: outputs, depth: depth, random: &random) {
      UInt8.random(in: 1...255, using: &$0)
    }
  }

  private func expectDefinition(
    _ x: Tensor, _ weight: PackedMatrix, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let expected = QuantisedReference.linear(x, weight, bias: nil)
    for device in TestDevices.all {
      let y = Tensor(zeros: .float32, [x.shape[0], weight.outputs])
      try device.linear(x, [LinearProduct(.panels(weight), into: y)])
      #expect(
        y.hasSameBits(as: expected), "\(device.instructionSet)", sourceLocation: sourceLocation)
    }
  }
}
