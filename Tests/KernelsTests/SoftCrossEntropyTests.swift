import Support
import Tensors
import Testing

@testable import Kernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct SoftCrossEntropyTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var rows: Int
    var width: Int
    var columns: Int
    /// Row, and pairs of column and share.
    var targets: [(row: Int, pairs: [(Int32, Double)])]
    var hasBias = true
    var type = ScalarType.float32

    var testDescription: String { "\(rows) × \(width) × \(columns), \(targets.count) \(type)" }

    func soft(_ scale: Float) -> SoftTargets {
      var soft = SoftTargets()
      for (row, pairs) in targets {
        soft.append(row: row, scale: scale, pairs.map { (column: $0.0, share: $0.1) })
      }
      return soft
    }

    /// Σ −Σ q · log softmax(hidden · weightᵀ + bias), in Double.
    func reference(_ hidden: [Double], _ weight: [Double], _ bias: [Double]?) -> Double {
      let logits = ReferenceMath.linear(
        hidden, weight: weight, bias: bias, rows: rows, depth: width, outputs: columns)
      return targets.reduce(0) { sum, target in
        let row = logits[target.row * columns..<(target.row + 1) * columns]
        let most = row.max() ?? 0
        let total = row.reduce(0) { $0 + exp($1 - most) }
        return target.pairs.reduce(sum) {
          $0 - $1.1 * (row[row.startIndex + Int($1.0)] - most - log(total))
        }
      }
    }
  }

  static let cases = [
    Case(rows: 1, width: 1, columns: 1, targets: [(0, [(0, 1)])]),
    Case(rows: 3, width: 5, columns: 7, targets: [(2, [(6, 1)]), (0, [(0, 0.5), (3, 0.5)])]),
    Case(rows: 4, width: 3, columns: 2, targets: []),
    Case(
      rows: 33, width: 20, columns: 1030,
      targets: (0..<33).filter { $0 % 3 != 1 }.map {
        ($0, [(Int32($0), 0.25), (1029, 0.5), (7, 0.25)])
      }, hasBias: false),
    Case(
      rows: 9, width: 8, columns: 12, targets: (0..<9).map { ($0, [(Int32($0), 1)]) },
      hasBias: false, type: .bfloat16),
  ]

  @Test("losses and gradients are those of the formula", arguments: cases)
  func gradients(_ one: Case) throws {
    var inputs: [GradientCase.Input] = [
      .init(shape: [one.rows, one.width], range: -3...3, gradient: .added),
      .init(
        shape: [one.columns, one.width], type: one.type,
        gradient: one.type == .float32 ? .added : .unwanted),
    ]
    if one.hasBias { inputs.append(.init(shape: [one.columns], gradient: .added)) }
    try GradientCase(
      name: "soft cross-entropy", inputs: inputs, outputShape: [1],
      reference: { [one.reference($0[0], $0[1], one.hasBias ? $0[2] : nil)] },
      gradient: { device, inputs, dY, gradients in
        let bias = one.hasBias ? inputs[2] : nil
        let found = try device.softCrossEntropy(
          hidden: inputs[0], weight: inputs[1], bias: bias, targets: one.soft(dY.floats[0]),
          dHidden: gradients[0], dWeight: gradients[1],
          dBias: one.hasBias ? gradients[2] : nil)
        let expected = one.reference(inputs[0].doubles, inputs[1].doubles, bias?.doubles)
        #expect(
          abs(found.reduce(0) { $0 + $1.loss } - expected) <= 1e-6 * max(1, abs(expected)))
        #expect(found.count == one.targets.count)
        let alone = try device.softCrossEntropy(
          hidden: inputs[0], weight: inputs[1], bias: bias, targets: one.soft(1), dHidden: nil,
          dWeight: nil, dBias: nil)
        #expect(alone == found)
      }
    ).check()
  }

  @Test("a hit is a target that no column is above")
  func hits() throws {
    let hidden = Tensor([1, 0, 0, 1], [2, 2])
    let weight = Tensor([1, 0, 0, 1, -1, -1], [3, 2])
    var targets = SoftTargets()
    for (row, column) in [(0, 0), (1, 0), (1, 1)] {
      targets.append(row: row, scale: 1, column: Int32(column))
    }
    let found = try CPUDevice(threads: 1).softCrossEntropy(
      hidden: hidden, weight: weight, bias: nil, targets: targets, dHidden: nil, dWeight: nil,
      dBias: nil)
    #expect(found.map(\.isHit) == [true, false, true])
  }

  @Test("targets outside the batch or the columns are refused")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    let (hidden, weight) = (Tensor([1, 2], [1, 2]), Tensor([1, 0, 0, 1], [2, 2]))
    func call(row: Int, column: Int32) throws {
      var targets = SoftTargets()
      targets.append(row: row, scale: 1, column: column)
      _ = try device.softCrossEntropy(
        hidden: hidden, weight: weight, bias: nil, targets: targets, dHidden: nil, dWeight: nil,
        dBias: nil)
    }
    for row in [-1, 1] {
      #expect(throws: KernelError.targetOutOfRange(row: row, rows: 1)) {
        try call(row: row, column: 0)
      }
    }
    for column: Int32 in [-1, 2] {
      #expect(throws: KernelError.tokenOutOfRange(id: Int(column), rows: 2)) {
        try call(row: 0, column: column)
      }
    }
  }
}
