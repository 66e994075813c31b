import Support
import Tensors
import Testing

@testable import Kernels

/// Sequences whose turns see a shared prefix and themselves.
struct SharedPrefixCase: Sendable, CustomTestStringConvertible {
  let rows: Int
  let heads: Int
  let keyValueHeads: Int
  let size: Int
  let sequences: [AttentionSequence]

  var testDescription: String { "\(heads) over \(keyValueHeads) × \(size), \(sequences)" }

  static let all: [SharedPrefixCase] = [
    ([AttentionSequence(0..<6, turns: [2, 1])], 6, 2, 1, 4),
    ([AttentionSequence(0..<3, turns: [1, 1, 1])], 3, 1, 1, 1),
    // A prefix that ends in a block, at its end, and behind it.
    ([AttentionSequence(2..<30, turns: [3, 5, 1])], 31, 6, 2, 24),
    ([AttentionSequence(0..<75, turns: [4, 7])], 75, 2, 2, 20),
    ([AttentionSequence(0..<150, turns: [60, 20, 5])], 150, 4, 2, 16),
    (
      [
        AttentionSequence(40..<62, turns: [2, 8, 3]), AttentionSequence(0..<20),
        AttentionSequence(20..<40, turns: [9]),
      ], 62, 4, 1, 8
    ),
  ].map { sequences, rows, heads, keyValueHeads, size in
    SharedPrefixCase(
      rows: rows, heads: heads, keyValueHeads: keyValueHeads, size: size, sequences: sequences)
  }

  /// For each row those that it sees.
  var seen: [Int: [Int]] {
    var seen: [Int: [Int]] = [:]
    for sequence in sequences {
      var start = sequence.rows.upperBound - sequence.turns.reduce(0, +)
      let prefix = Array(sequence.rows.lowerBound..<start)
      for row in prefix { seen[row] = Array(sequence.rows.lowerBound...row) }
      for turn in sequence.turns {
        for row in start..<start + turn { seen[row] = prefix + Array(start...row) }
        start += turn
      }
    }
    return seen
  }

  func reference(q: [Double], k: [Double], v: [Double]) -> [Double] {
    ReferenceMath.attention(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, size: size, seen: seen)
  }
}

@Suite struct SharedPrefixTests {
  @Test("turns see their prefix and themselves", arguments: SharedPrefixCase.all)
  func forward(_ layout: SharedPrefixCase) throws {
    var random = SeededRandom(7)
    let q = random.tensor([layout.rows, layout.heads * layout.size], in: -3...3)
    let k = random.tensor([layout.rows, layout.keyValueHeads * layout.size], in: -3...3)
    let v = random.tensor([layout.rows, layout.keyValueHeads * layout.size])
    try expectEverywhere(
      layout.reference(q: q.doubles, k: k.doubles, v: v.doubles), tolerance: 4e-6
    ) { device in
      let y = Tensor([Float](repeating: .nan, count: q.count), q.shape)
      try device.causalAttention(
        q: q, k: k, v: v, heads: layout.heads, keyValueHeads: layout.keyValueHeads,
        sequences: layout.sequences, into: y)
      return y
    }
  }

  /// The gradients of queries, keys and values by rows, y first.
  private struct Results {
    var y: Tensor
    var dQ: Tensor
    var dK: Tensor
    var dV: Tensor

    var all: [Tensor] { [y, dQ, dK, dV] }
  }

  private func attend(
    _ inputs: [Tensor], _ sequences: [AttentionSequence], on device: CPUDevice
  ) throws -> Results {
    let (q, k, v, dY) = (inputs[0], inputs[1], inputs[2], inputs[3])
    func like(_ tensor: Tensor) -> Tensor {
      Tensor([Float](repeating: .nan, count: tensor.count), tensor.shape)
    }
    let results = Results(y: like(q), dQ: like(q), dK: like(k), dV: like(v))
    let (heads, keyValueHeads) = (4, 2)
    try device.causalAttention(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, sequences: sequences,
      into: results.y)
    try device.causalAttentionGradient(
      dY: dY, q: q, k: k, v: v, y: results.y, heads: heads, keyValueHeads: keyValueHeads,
      sequences: sequences, dQ: results.dQ, dK: results.dK, dV: results.dV)
    return results
  }

  private func inputs(rows: Int) -> [Tensor] {
    var random = SeededRandom(11)
    return [4, 2, 2, 4].map { random.tensor([rows, $0 * 20], in: -2...2) }
  }

  @Test(
    "a turn has the bits of a sequence of prefix and turn", arguments: [1, 40, 63, 64, 65, 130])
  func turnBits(prefix: Int) throws {
    let turns = [7, 1, 66]
    let inputs = inputs(rows: prefix + turns.reduce(0, +))
    for device in TestDevices.all {
      let together = try attend(
        inputs, [AttentionSequence(0..<inputs[0].shape[0], turns: turns)], on: device)
      var start = prefix
      for turn in turns {
        let rows = Array(0..<prefix) + Array(start..<start + turn)
        let alone = try attend(
          inputs.map { tensor in
            Tensor(rows.flatMap { tensor[$0].floats }, [rows.count, tensor.shape[1]])
          }, [AttentionSequence(0..<rows.count)], on: device)
        #expect(
          alone.y.rows(prefix..<prefix + turn).hasSameBits(
            as: together.y.rows(start..<start + turn)))
        #expect(
          alone.dQ.rows(prefix..<prefix + turn).hasSameBits(
            as: together.dQ.rows(start..<start + turn)))
        start += turn
      }
    }
  }

  @Test("one turn, and none, are a sequence as always")
  func oneTurn() throws {
    let inputs = inputs(rows: 70)
    for device in TestDevices.all {
      let whole = try attend(inputs, [AttentionSequence(0..<70)], on: device)
      for turn in [1, 30, 70] {
        let one = try attend(inputs, [AttentionSequence(0..<70, turns: [turn])], on: device)
        for (a, b) in zip(whole.all, one.all) { #expect(a.hasSameBits(as: b)) }
      }
    }
  }

  @Test("turns behind no prefix are sequences of their own")
  func noPrefix() throws {
    let inputs = inputs(rows: 75)
    for device in TestDevices.all {
      let turns = try attend(inputs, [AttentionSequence(0..<75, turns: [70, 5])], on: device)
      let alone = try attend(
        inputs, [AttentionSequence(0..<70), AttentionSequence(70..<75)], on: device)
      for (a, b) in zip(turns.all, alone.all) { #expect(a.hasSameBits(as: b)) }
    }
  }

  @Test("a sequence with turns has the same bits alone and among others")
  func company() throws {
    let inputs = inputs(rows: 150)
    for device in TestDevices.all {
      let among = try attend(
        inputs,
        [
          AttentionSequence(0..<20, turns: [3, 4]), AttentionSequence(100..<150),
          AttentionSequence(20..<100, turns: [5, 6, 7]),
        ], on: device)
      let alone = try attend(
        inputs.map { $0.rows(20..<100) }, [AttentionSequence(0..<80, turns: [5, 6, 7])], on: device)
      for (a, b) in zip(among.all, alone.all) { #expect(a.rows(20..<100).hasSameBits(as: b)) }
    }
  }
}
