import Support
import Tensors
import Testing

@testable import Kernels

/// The order of the sums in gradients of linear layers; ``GradientTests`` has their values.
@Suite struct LinearGradientTests {
  @Test(
    "an input's gradient sums over outputs in blocks of 256, and is added as a whole",
    arguments: [(1, 3, 5), (2, 17, 257), (15, 33, 300), (70, 16, 513), (13, 130, 256)])
  func inputs(rows: Int, depth: Int, outputs: Int) throws {
    for type in [ScalarType.float32, .bfloat16] {
      var random = SeededRandom(UInt64(rows + depth + outputs))
      let dY = random.tensor([rows, outputs])
      let weight = random.tensor([outputs, depth], type)
      let before = random.tensor([rows, depth])
      let (a, b) = (dY.floats, weight.floats)
      let sums = (0..<rows * depth).map { place in
        let (row, k) = place.quotientAndRemainder(dividingBy: depth)
        return Self.sum(outputs) { (a[row * outputs + $0], b[$0 * depth + k]) }
      }
      for device in TestDevices.all {
        let written = Tensor([Float](repeating: .nan, count: before.count), before.shape)
        try device.linearInputGradient(dY: dY, weight: weight, adding: false, into: written)
        #expect(written.floats == sums, "\(device.instructionSet)")
        let added = Tensor(before.floats, before.shape)
        try device.linearInputGradient(dY: dY, weight: weight, adding: true, into: added)
        #expect(added.floats == zip(before.floats, sums).map { $0 + $1 })
      }
    }
  }

  @Test(
    "a weight's gradient sums over rows in blocks of 256, one micro-batch after another",
    arguments: [(1, 3, 5), (257, 17, 15), (300, 33, 16), (513, 40, 70), (31, 130, 257)])
  func weights(rows: Int, depth: Int, outputs: Int) throws {
    var random = SeededRandom(UInt64(rows + depth + outputs))
    let (x, dY) = (random.tensor([2 * rows, depth]), random.tensor([2 * rows, outputs]))
    let before = random.tensor([outputs, depth])
    var expected = before.floats
    for batch in 0..<2 {
      let a = dY.rows(batch * rows..<(batch + 1) * rows).floats
      let b = x.rows(batch * rows..<(batch + 1) * rows).floats
      for place in expected.indices {
        let (output, k) = place.quotientAndRemainder(dividingBy: depth)
        expected[place] += Self.sum(rows) { (a[$0 * outputs + output], b[$0 * depth + k]) }
      }
    }
    for device in TestDevices.all {
      let found = Tensor(before.floats, before.shape)
      for batch in 0..<2 {
        let rows = batch * rows..<(batch + 1) * rows
        try device.linearWeightGradient(
          x: x.rows(rows), dY: dY.rows(rows), weight: found, bias: nil)
      }
      #expect(found.floats == expected, "\(device.instructionSet)")
    }
  }

  @Test("writes nothing outside its rows of a larger tensor")
  func bounds() throws {
    var random = SeededRandom(8)
    for device in TestDevices.all {
      let dX = Tensor([Float](repeating: 7, count: 5 * 19), [5, 19])
      try device.linearInputGradient(
        dY: random.tensor([3, 20]), weight: random.tensor([20, 19]), adding: false,
        into: dX.rows(1..<4))
      #expect((dX[0].floats + dX[4].floats).allSatisfy { $0 == 7 })
      let dWeight = Tensor([Float](repeating: 7, count: 23 * 19), [23, 19])
      try device.linearWeightGradient(
        x: random.tensor([3, 19]), dY: random.tensor([3, 21]), weight: dWeight.rows(1..<22),
        bias: nil)
      #expect((dWeight[0].floats + dWeight[22].floats).allSatisfy { $0 == 7 })
    }
  }

  /// The sum of products in the order of ``Linear``.
  private static func sum(_ count: Int, _ factors: (Int) -> (Float, Float)) -> Float {
    var sum: Float?
    for first in stride(from: 0, to: count, by: 256) {
      var chain: Float = 0
      for k in first..<min(first + 256, count) {
        let (a, b) = factors(k)
        chain = chain.addingProduct(a, b)
      }
      sum = sum.map { $0 + chain } ?? chain
    }
    return sum ?? 0
  }
}
