import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct CrossEntropyTests {
  @Test(
    "losses and gradients are those of the formula",
    arguments: [
      ([0], 1, 1), ([2, -100, 0, 4], 7, 5), ([-100, -100], 3, 4), ([], 3, 4),
      ([1029, 0, 5, -100, 1028], 33, 1030), ((0..<70).map { $0 % 3 == 1 ? -100 : $0 }, 20, 70),
    ] as [([Int32], Int, Int)], [ScalarType.float32, .bfloat16])
  func gradients(labels: (rows: [Int32], width: Int, vocabulary: Int), type: ScalarType) throws {
    let (rows, width, vocabulary) = labels
    // The projection is the scale: dY has one element.
    try GradientCase(
      name: "cross-entropy",
      inputs: [
        .init(shape: [rows.count, width], range: -3...3),
        .init(
          shape: [vocabulary, width], type: type,
          gradient: type == .float32 ? .added : .unwanted),
      ],
      outputShape: [1],
      reference: {
        [
          ReferenceMath.crossEntropy(
            hidden: $0[0], weight: $0[1], labels: rows, vocabulary: vocabulary)
        ]
      },
      gradient: { device, inputs, dY, gradients in
        let found = try device.crossEntropy(
          hidden: inputs[0], weight: inputs[1], labels: rows, scale: dY.floats[0],
          dHidden: gradients[0], dWeight: gradients[1])
        let expected = ReferenceMath.crossEntropy(
          hidden: inputs[0].doubles, weight: inputs[1].doubles, labels: rows,
          vocabulary: vocabulary)
        #expect(abs(found.sum - expected) <= 1e-6 * max(1, expected))
        #expect(found.rows == rows.count { $0 != -100 })
        // Without gradients the same loss.
        let alone = try device.crossEntropy(
          hidden: inputs[0], weight: inputs[1], labels: rows, scale: 1, dHidden: nil, dWeight: nil)
        #expect(alone == found)
      }
    ).check()
  }

  @Test("a row's loss does not depend on the rows beside it")
  func rowsAreIndependent() throws {
    var random = SeededRandom(2)
    // More than 32 MB of logits: several chunks.
    let (rows, width, vocabulary) = (150, 8, 80_000)
    let hidden = random.tensor([rows, width], in: -3...3)
    let weight = random.tensor([vocabulary, width], .bfloat16)
    let labels = (0..<rows).map { _ in Int32.random(in: 0..<Int32(vocabulary), using: &random) }
    let device = try CPUDevice(threads: 2)
    func loss(_ rows: Range<Int>, dHidden: Tensor? = nil) throws -> Double {
      try device.crossEntropy(
        hidden: hidden.rows(rows), weight: weight, labels: Array(labels[rows]), scale: 0.5,
        dHidden: dHidden, dWeight: nil
      ).sum
    }
    let dHidden = Tensor(zeros: .float32, hidden.shape)
    let whole = try loss(0..<rows, dHidden: dHidden)
    let each = try (0..<rows).map { try loss($0..<$0 + 1) }
    #expect(whole == each.reduce(0, +))
    for row in [0, 103, 104, 149] {
      let alone = Tensor(zeros: .float32, [1, width])
      _ = try loss(row..<row + 1, dHidden: alone)
      expectClose(dHidden.rows(row..<row + 1), alone.doubles, tolerance: 1e-6)
    }
  }

  @Test("large logits neither overflow nor lose the loss")
  func largeLogits() throws {
    let device = try CPUDevice(threads: 1)
    let dHidden = Tensor(zeros: .float32, [2, 1])
    let found = try device.crossEntropy(
      hidden: Tensor([1, -1], [2, 1]), weight: Tensor([3e4, -3e4], [2, 1]), labels: [1, 1],
      scale: 1,
      dHidden: dHidden, dWeight: nil)
    #expect(found.sum == 6e4)
    #expect(dHidden.floats == [6e4, 0])
  }

  @Test("what is not a number stays so")
  func notANumber() throws {
    let device = try CPUDevice(threads: 1)
    for value in [Float.nan, .infinity] {
      let found = try device.crossEntropy(
        hidden: Tensor([value], [1, 1]), weight: Tensor([1, 2, 3], [3, 1]), labels: [1], scale: 1,
        dHidden: nil, dWeight: nil)
      #expect(!found.sum.isFinite)
    }
  }

  @Test("labels outside the vocabulary and shapes that do not fit are refused")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    let hidden = Tensor(zeros: .float32, [2, 3])
    let weight = Tensor(zeros: .float32, [4, 3])
    for label: Int32 in [4, -1, -101] {
      #expect(throws: KernelError.tokenOutOfRange(id: Int(label), rows: 4)) {
        try device.crossEntropy(
          hidden: hidden, weight: weight, labels: [0, label], scale: 1, dHidden: nil,
          dWeight: nil)
      }
    }
    for (hidden, weight, labels, dHidden, dWeight) in [
      (hidden, weight, [0], nil, nil), (weight, hidden.reshaped([3, 2]), [0, 0, 0, 0], nil, nil),
      (hidden, weight, [0, 0], weight, nil), (hidden, weight, [0, 0], nil, hidden),
      (hidden, Tensor(zeros: .float32, [12]), [0, 0], nil, nil),
    ] as [(Tensor, Tensor, [Int32], Tensor?, Tensor?)] {
      #expect(throws: TensorError.self) {
        try device.crossEntropy(
          hidden: hidden, weight: weight, labels: labels, scale: 1, dHidden: dHidden,
          dWeight: dWeight)
      }
    }
  }
}
