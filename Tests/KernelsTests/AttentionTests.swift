import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct AttentionTests {
  @Test(
    "bidirectional attention agrees with the reference",
    arguments: [
      (1, 1, 1), (5, 2, 20), (17, 3, 24), (130, 2, 16), (257, 1, 64), (0, 2, 4), (15, 2, 5),
      (16, 1, 128), (63, 2, 21), (64, 1, 80), (65, 2, 64), (1030, 1, 5),
    ])
  func bidirectional(rows: Int, heads: Int, size: Int) throws {
    var random = SeededRandom(UInt64(rows))
    let width = heads * size
    let q = random.tensor([rows, width], in: -3...3)
    let k = random.tensor([rows, width], in: -3...3)
    let v = random.tensor([rows, width])
    let (queries, keys, values) = (q.doubles, k.doubles, v.doubles)
    var expected = [Double](repeating: 0, count: rows * width)
    for head in 0..<heads {
      func slices(_ all: [Double]) -> [ArraySlice<Double>] {
        (0..<rows).map { all[$0 * width + head * size..<$0 * width + (head + 1) * size] }
      }
      let (headKeys, headValues) = (slices(keys), slices(values))
      for (row, query) in slices(queries).enumerated() {
        let y = ReferenceMath.attention(query, keys: headKeys, values: headValues)
        expected.replaceSubrange(
          row * width + head * size..<row * width + (head + 1) * size, with: y)
      }
    }
    try expectEverywhere(expected, tolerance: 4e-6) { device in
      let y = Tensor(zeros: .float32, [rows, width])
      try device.bidirectionalAttention(
        q: q, k: k, v: v, heads: heads, rowsEach: max(rows, 1), into: y)
      return y
    }
  }

  @Test(
    "bidirectional attention of a picture has the same bits alone and among others",
    arguments: [(1, 3), (17, 40), (130, 3), (0, 1)])
  func bidirectionalPictures(rowsEach: Int, count: Int) throws {
    var random = SeededRandom(UInt64(rowsEach))
    let (heads, width) = (3, 3 * 20)
    let shape = [rowsEach * count, width]
    let (q, k, v) = (random.tensor(shape), random.tensor(shape), random.tensor(shape))
    var first: Tensor?
    for device in TestDevices.all {
      func attend(_ rows: Range<Int>) throws -> Tensor {
        let y = Tensor(zeros: .float32, [rows.count, width])
        try device.bidirectionalAttention(
          q: q.rows(rows), k: k.rows(rows), v: v.rows(rows), heads: heads,
          rowsEach: max(rowsEach, 1), into: y)
        return y
      }
      let whole = try attend(0..<rowsEach * count)
      for picture in 0..<count {
        let rows = picture * rowsEach..<(picture + 1) * rowsEach
        #expect(try attend(rows).hasSameBits(as: whole.rows(rows)), "picture \(picture)")
      }
      if let first { #expect(whole.hasSameBits(as: first)) } else { first = whole }
    }
  }

  @Test("bidirectional attention refuses shapes that do not fit")
  func bidirectionalRefusals() throws {
    let device = try CPUDevice(threads: 1)
    let a = Tensor(zeros: .float32, [2, 6])
    #expect(throws: TensorError.self) {
      try device.bidirectionalAttention(q: a, k: a, v: a, heads: 2, rowsEach: 3, into: a)
    }
    let b = Tensor(zeros: .float32, [3, 4])
    for (q, k, v, y, heads) in [
      (a, b, a, a, 2), (a, a, b, a, 2), (a, a, a, b, 2), (a, a, a, a, 4), (a, a, a, a, 0),
    ] {
      #expect(throws: TensorError.self) {
        try device.bidirectionalAttention(
          q: q, k: k, v: v, heads: heads, rowsEach: 2, into: y)
      }
    }
  }

  /// Room for so many positions. What lies in it is not a number, so that a look beyond the last
  /// row shows.
  static func cache(_ layout: CacheLayout, positions: Int) throws -> CacheBlocks {
    var blocks = CacheBlocks(layout: layout)
    while blocks.positions < positions {
      let block = Tensor(uninitialized: .uint8, [layout.blockBytes])
      block.withElements(of: UInt8.self) { $0.update(repeating: 0xFF) }
      try blocks.append(block)
    }
    return blocks
  }
}
