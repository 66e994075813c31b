import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct RowOperationTests {
  @Test(
    "the residual connection adds, with and without a scale",
    arguments: [(1, 1), (3, 15), (300, 260), (2, 17), (0, 4)])
  func residual(rows: Int, width: Int) throws {
    var random = SeededRandom(7)
    let x = random.tensor([rows, width])
    let y = random.tensor([rows, width])
    for scale in [nil, random.tensor([width]), random.tensor([width], .bfloat16)] {
      let scales = scale?.doubles ?? [Double](repeating: 1, count: width)
      let expected = zip(x.doubles, y.doubles).enumerated().map { index, pair in
        pair.0 + scales[index % width] * pair.1
      }
      try expectEverywhere(expected, tolerance: 2e-7) { device in
        let sum = Tensor(x.floats, x.shape)
        try device.addScaled(y, scale: scale, to: sum)
        return sum
      }
    }
  }

  @Test("the residual connection refuses other shapes")
  func residualRefusals() throws {
    let device = try CPUDevice(threads: 1)
    let x = Tensor(zeros: .float32, [2, 3])
    #expect(throws: TensorError.self) {
      try device.addScaled(Tensor(zeros: .float32, [3, 2]), scale: nil, to: x)
    }
    #expect(throws: TensorError.self) {
      try device.addScaled(x, scale: Tensor(zeros: .float32, [2]), to: x)
    }
  }

  @Test(
    "rotation turns the two halves of every head",
    arguments: [(1, 1, 2), (3, 2, 20), (5, 3, 24), (4, 2, 128), (40, 7, 64), (0, 1, 8)])
  func rotation(rows: Int, heads: Int, size: Int) throws {
    var random = SeededRandom(9)
    let x = random.tensor([rows, heads * size])
    let cosines = random.tensor([50, size / 2])
    let sines = random.tensor([50, size / 2])
    let positions = (0..<rows).map { _ in Int.random(in: 0..<50, using: &random) }
    let expected = ReferenceMath.rotate(
      x.doubles, heads: heads, size: size, cosines: positions.map { cosines[$0].doubles },
      sines: positions.map { sines[$0].doubles })
    try expectEverywhere(expected, tolerance: 2e-7) { device in
      let rotated = Tensor(x.floats, x.shape)
      try device.rotate(
        rotated, heads: heads, positions: positions, cosines: cosines, sines: sines)
      return rotated
    }
  }

  @Test("rotation refuses positions outside the tables and leaves the rows alone")
  func rotationRefusals() throws {
    let device = try CPUDevice(threads: 1)
    let table = Tensor(zeros: .float32, [4, 2])
    let x = Tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 4])
    for position in [-1, 4] {
      #expect(throws: KernelError.positionOutOfRange(position: position, rows: 4)) {
        try device.rotate(
          x, heads: 1, positions: [0, position], cosines: table, sines: table)
      }
    }
    #expect(throws: TensorError.self) {
      try device.rotate(x, heads: 2, positions: [0, 1], cosines: table, sines: table)
    }
    #expect(throws: TensorError.self) {
      try device.rotate(x, heads: 1, positions: [0], cosines: table, sines: table)
    }
    #expect(x.floats == [1, 2, 3, 4, 5, 6, 7, 8])
  }

  @Test("embedding copies rows of a float32 or bfloat16 table", arguments: [1, 15, 16, 33])
  func embedding(width: Int) throws {
    var random = SeededRandom(4)
    for type in [ScalarType.float32, .bfloat16] {
      let table = random.tensor([6, width], type)
      let ids: [Int32] = [5, 0, 5, 3]
      try expectEverywhere(ids.flatMap { table[Int($0)].doubles }, tolerance: 0) { device in
        let y = Tensor(zeros: .float32, [4, width])
        try device.embed(ids, table: table, into: y)
        return y
      }
    }
  }

  @Test("embedding refuses ids outside the table", arguments: [Int32(-1), 3, .max])
  func embeddingRefusals(id: Int32) throws {
    let device = try CPUDevice(threads: 1)
    let table = Tensor(zeros: .float32, [3, 2])
    let y = Tensor([9, 9, 9, 9], [2, 2])
    #expect(throws: KernelError.tokenOutOfRange(id: Int(id), rows: 3)) {
      try device.embed([0, id], table: table, into: y)
    }
    #expect(y.floats == [9, 9, 9, 9])
    #expect(throws: TensorError.self) { try device.embed([0], table: table, into: y) }
    try device.embed([], table: table, into: Tensor(zeros: .float32, [0, 2]))
  }

  @Test(
    "patches are cut row by row, each as channel, row, column",
    arguments: [(2, 2, 2), (4, 6, 2), (28, 42, 14), (3, 5, 1)])
  func patches(height: Int, width: Int, patch: Int) throws {
    var random = SeededRandom(6)
    let pixels = random.tensor([3, height, width])
    let values = pixels.doubles
    var expected: [Double] = []
    for top in stride(from: 0, to: height, by: patch) {
      for left in stride(from: 0, to: width, by: patch) {
        for channel in 0..<3 {
          for row in top..<top + patch {
            for column in left..<left + patch {
              expected.append(values[(channel * height + row) * width + column])
            }
          }
        }
      }
    }
    try expectEverywhere(expected, tolerance: 0) { device in
      let y = Tensor(
        zeros: .float32, [height / patch * (width / patch), 3 * patch * patch])
      try device.patches(pixels, patch: patch, into: y)
      return y
    }
  }

  @Test("patches refuse sizes that are no multiple of the patch")
  func patchRefusals() throws {
    let device = try CPUDevice(threads: 1)
    let y = Tensor(zeros: .float32, [4, 12])
    for shape in [[3, 5, 4], [3, 4, 5], [1, 4, 4], [4, 4]] {
      #expect(throws: TensorError.self) {
        try device.patches(Tensor(zeros: .float32, shape), patch: 2, into: y)
      }
    }
    #expect(throws: TensorError.self) {
      try device.patches(Tensor(zeros: .float32, [3, 4, 4]), patch: 0, into: y)
    }
    #expect(throws: TensorError.self) {
      try device.patches(Tensor(zeros: .float32, [3, 4, 6]), patch: 2, into: y)
    }
  }
}
