import CKernels
import Support
import Tensors
import Testing

@testable import Kernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What training needs besides gradients.
@Suite struct TrainingOperationTests {
  @Test(
    "causal attention gives the bits of attention over the cache",
    arguments: [
      (1, 1, 1, 4), (64, 2, 1, 20), (65, 4, 2, 16), (200, 7, 1, 24), (150, 6, 3, 72),
    ])
  func causalBits(rows: Int, heads: Int, keyValueHeads: Int, size: Int) throws {
    var random = SeededRandom(5)
    let q = random.tensor([rows, heads * size], in: -3...3)
    let k = random.tensor([rows, keyValueHeads * size], in: -3...3)
    let v = random.tensor([rows, keyValueHeads * size])
    for device in TestDevices.all {
      let span = AttentionSpan(
        rows: 0..<rows, position: 0,
        cache: try AttentionTests.cache(
          CacheLayout(type: .float32, keyValueHeads: keyValueHeads, headSize: size),
          positions: rows))
      let cached = Tensor(zeros: .float32, q.shape)
      try device.appendToCache(k: k, v: v, keyValueHeads: keyValueHeads, spans: [span])
      try device.cachedAttention(
        q: q, heads: heads, keyValueHeads: keyValueHeads, spans: [span], into: cached)
      // Beside others, in another place and with rows of nobody between them.
      let around = Tensor([Float](repeating: 9, count: 3 * heads * size), [3, heads * size])
      func wide(_ tensor: Tensor, _ count: Int) -> Tensor {
        let edge = Array(around.floats[..<(3 * count)])
        return Tensor(edge + tensor.floats + tensor.floats, [3 + 2 * rows, count])
      }
      let y = Tensor(
        [Float](repeating: .nan, count: (3 + 2 * rows) * heads * size),
        [3 + 2 * rows, heads * size])
      try device.causalAttention(
        q: wide(q, heads * size), k: wide(k, keyValueHeads * size),
        v: wide(v, keyValueHeads * size), heads: heads, keyValueHeads: keyValueHeads,
        sequences: [AttentionSequence(3 + rows..<3 + 2 * rows), AttentionSequence(3..<3 + rows)],
        into: y)
      #expect(y.rows(0..<3).floats.allSatisfy { $0 == 0 })
      #expect(y.rows(3..<3 + rows).hasSameBits(as: cached))
      #expect(y.rows(3 + rows..<3 + 2 * rows).hasSameBits(as: cached))
    }
  }

  @Test("causal attention refuses sequences outside the batch and such as overlap")
  func causalRefusals() throws {
    let device = try CPUDevice(threads: 1)
    let a = Tensor(zeros: .float32, [4, 6])
    func attend(_ sequences: [Range<Int>]) throws {
      try device.causalAttention(
        q: a, k: a, v: a, heads: 2, keyValueHeads: 2,
        sequences: sequences.map { AttentionSequence($0) }, into: Tensor(zeros: .float32, [4, 6]))
    }
    #expect(throws: KernelError.spanOutOfRange(rows: 2..<5, batch: 4)) { try attend([2..<5]) }
    #expect(throws: KernelError.spanOutOfRange(rows: -1..<2, batch: 4)) { try attend([-1..<2]) }
    #expect(throws: KernelError.sequencesOverlap(rows: 1..<3, end: 2)) {
      try attend([1..<3, 0..<2])
    }
    try attend([0..<2, 1..<1, 2..<4])
    for turns in [[5], [2, 3], [0], [-1, 3], [.max, 2]] {
      #expect(throws: KernelError.turnsOutOfRange(turns: turns, rows: 4)) {
        try device.causalAttention(
          q: a, k: a, v: a, heads: 2, keyValueHeads: 2,
          sequences: [AttentionSequence(0..<4, turns: turns)],
          into: Tensor(zeros: .float32, [4, 6]))
      }
    }
    #expect(throws: TensorError.self) {
      try device.causalAttention(
        q: a, k: a, v: a, heads: 2, keyValueHeads: 1, sequences: [], into: a)
    }
  }

  @Test("the residual connection with factors of 1 gives the bits of the one without")
  func factors() throws {
    var random = SeededRandom(1)
    let x = random.tensor([6, 33])
    let y = random.tensor([6, 33])
    for scale in [nil, random.tensor([33]), random.tensor([33], .bfloat16)] {
      for device in TestDevices.all {
        let plain = Tensor(x.floats, x.shape)
        try device.addScaled(y, scale: scale, to: plain)
        let dropping = Tensor(x.floats, x.shape)
        try device.addScaled(y, scale: scale, factors: [1, 0, 2.5], to: dropping)
        #expect(dropping.rows(0..<2).hasSameBits(as: plain.rows(0..<2)))
        #expect(dropping.rows(2..<4).hasSameBits(as: x.rows(2..<4)))
        let scales = scale?.doubles ?? [Double](repeating: 1, count: 33)
        expectClose(
          dropping.rows(4..<6),
          zip(x.rows(4..<6).doubles, y.rows(4..<6).doubles).enumerated().map {
            $1.0 + 2.5 * scales[$0 % 33] * $1.1
          }, tolerance: 3e-7)
      }
    }
    let device = try CPUDevice(threads: 1)
    for factors in [[], [1, 1, 1, 1]] as [[Float]] {
      #expect(throws: TensorError.self) {
        try device.addScaled(y, scale: nil, factors: factors, to: x)
      }
    }
  }

  @Test("a gradient may be written over the one it comes from")
  func inPlace() throws {
    var random = SeededRandom(3)
    let shape = [70, 33]
    let (x, up, dY) = (random.tensor(shape), random.tensor(shape), random.tensor(shape))
    let weight = random.tensor([33])
    let calls: [(CPUDevice, Tensor, Tensor) throws -> Void] = [
      { device, dY, dX in try device.geluGradient(dY: dY, x: x, into: dX) },
      { device, dY, dX in
        try device.siluMultiplyGradient(
          dY: dY, gate: x, up: up, into: dX, up: Tensor(zeros: .float32, shape))
      },
      { device, dY, dX in
        try device.rmsNormGradient(
          dY: dY, x: x, weight: weight, epsilon: 1e-5, adding: false, into: dX,
          weight: Tensor(zeros: .float32, [33]))
      },
      { device, dY, dX in
        try device.layerNormGradient(
          dY: dY, x: x, weight: weight, epsilon: 1e-5, adding: false, into: dX,
          weight: Tensor(zeros: .float32, [33]), bias: Tensor(zeros: .float32, [33]))
      },
      { device, dY, dX in
        try device.dropout(
          dY, probability: 0.3, random: RandomStream(seed: 1, stream: 2), into: dX)
      },
    ]
    for device in TestDevices.all {
      for call in calls {
        let apart = Tensor(zeros: .float32, shape)
        try call(device, dY, apart)
        let over = Tensor(dY.floats, shape)
        try call(device, over, over)
        #expect(over.hasSameBits(as: apart))
      }
    }
  }

  @Test("GELU's gradient is 0 and 1 far out, and NaN stays NaN")
  func geluLimits() throws {
    for device in TestDevices.all {
      let x = Tensor([1e30, -1e30, .infinity, -.infinity, .nan], [5])
      let dX = Tensor([2, 2, 2, 2, 2], [5])
      try device.geluGradient(dY: dX, x: x, into: dX)
      #expect(Array(dX.floats[..<4]) == [2, 0, 2, 0])
      #expect(dX.floats[4].isNaN)
    }
  }

  @Test("Philox gives the words of its authors' known answers")
  func philox() {
    // kat_vectors of Random123: philox4x32, 10 rounds.
    #expect(
      RandomStream(seed: 0, stream: 0).words(0) == [
        0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8,
      ])
    #expect(
      RandomStream(seed: .max, stream: .max).words(.max) == [
        0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd,
      ])
    #expect(
      RandomStream(seed: 0x299f_31d0_a409_3822, stream: 0x0370_7344_1319_8a2e)
        .words(0x85a3_08d3_243f_6a88) == [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1])
  }

  @Test("draws are spread evenly over [0, 1)")
  func uniform() {
    let random = RandomStream(seed: 7, stream: 9)
    var bins = [Int](repeating: 0, count: 10)
    for element in 0..<100_000 {
      let draw = random.uniform(UInt64(element))
      guard draw >= 0, draw < 1 else { return #expect(Bool(false), "drew \(draw)") }
      bins[Int(draw * 10)] += 1
    }
    // Five standard deviations of 95 around 10,000.
    #expect(bins.allSatisfy { abs($0 - 10_000) < 475 }, "\(bins)")
  }

  @Test("dropout keeps its share, scaled, and draws the same again", arguments: [0, 0.05, 0.5, 1])
  func dropout(probability: Float) throws {
    let count = 150_001
    let x = Tensor([Float](repeating: 3, count: count), [count])
    let random = RandomStream(seed: 11, stream: 1 << 40)
    var first: Tensor?
    for device in TestDevices.all {
      let y = Tensor(zeros: .float32, [count])
      try device.dropout(x, probability: probability, random: random, into: y)
      if let first { #expect(y.hasSameBits(as: first)) } else { first = y }
    }
    let values = try #require(first).floats
    let kept = values.count { $0 != 0 }
    let share = Double(1 - probability)
    let deviation = (Double(count) * share * (1 - share)).squareRoot()
    #expect(abs(Double(kept) - share * Double(count)) <= 5 * deviation)
    #expect(values.allSatisfy { $0 == 0 || $0 == 3 * (1 / (1 - probability)) })
    for element in [0, 1, 65_535, 65_536, count - 1] {
      #expect((values[element] != 0) == (random.uniform(UInt64(element)) >= probability))
    }
    let other = Tensor(zeros: .float32, [count])
    try CPUDevice(threads: 1).dropout(
      x, probability: probability, random: RandomStream(seed: 12, stream: 1 << 40), into: other)
    #expect((probability > 0 && probability < 1) != other.hasSameBits(as: try #require(first)))
  }

  @Test("AdamW takes the steps of its formula", arguments: [1, 15, 1000, 70_000])
  func adamW(count: Int) throws {
    var random = SeededRandom(2)
    let start = random.tensor([count])
    let gradients = (0..<3).map { _ in random.tensor([count], in: -1e-3...1e-3) }
    var value = start.doubles
    var first = [Double](repeating: 0, count: count)
    var second = first
    func step(_ update: Int) -> AdamWStep {
      AdamWStep(
        learningRate: 1e-2 * Double(update), beta1: 0.9, beta2: 0.999, epsilon: 1e-8,
        weightDecay: 0.05, update: update, gradientScale: 0.25)
    }
    for update in 1...3 {
      let s = step(update)
      for (i, gradient) in gradients[update - 1].doubles.enumerated() {
        let g = gradient * s.gradientScale
        value[i] *= 1 - s.learningRate * s.weightDecay
        first[i] = s.beta1 * first[i] + (1 - s.beta1) * g
        second[i] = s.beta2 * second[i] + (1 - s.beta2) * g * g
        let divisor =
          (second[i]).squareRoot() / (1 - pow(s.beta2, Double(update))).squareRoot() + s.epsilon
        value[i] -= s.learningRate / (1 - pow(s.beta1, Double(update))) * first[i] / divisor
      }
    }
    var found: [Tensor] = []
    for device in TestDevices.all {
      let tensors =
        [Tensor(start.floats, [count])] + (0..<2).map { _ in Tensor(zeros: .float32, [count]) }
      for update in 1...3 {
        try device.adamW(
          tensors[0], gradient: gradients[update - 1], firstMoment: tensors[1],
          secondMoment: tensors[2], step: step(update))
      }
      if found.isEmpty { found = tensors }
      for (tensor, other) in zip(tensors, found) { #expect(tensor.hasSameBits(as: other)) }
    }
    expectClose(found[0], value, tolerance: 3e-7)
    expectClose(Tensor(found[1].floats.map { $0 * 1e4 }, [count]), first.map { $0 * 1e4 })
    expectClose(Tensor(found[2].floats.map { $0 * 1e8 }, [count]), second.map { $0 * 1e8 })
  }

  @Test("sums of squares keep the digits of Double", arguments: [0, 1, 17, 65_536, 200_003])
  func sums(count: Int) throws {
    var random = SeededRandom(4)
    let x = random.tensor([count], in: -1e3...1e3)
    let expected = x.doubles.reduce(0) { $0 + $1 * $1 }
    var first: Double?
    for device in TestDevices.all {
      let found = try device.sumOfSquares(x)
      #expect(abs(found - expected) <= 1e-12 * expected)
      #expect(found == first ?? found)
      first = found
      let sum = Tensor(x.floats, [count])
      try device.add(x, to: sum)
      #expect(sum.floats == x.floats.map { $0 + $0 })
      try device.clear(sum)
      #expect(sum.floats.allSatisfy { $0 == 0 })
    }
  }

  @Test("gradients of shapes and types that do not fit are refused")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    func zeros(_ shape: [Int], _ type: ScalarType = .float32) -> Tensor {
      Tensor(zeros: type, shape)
    }
    let (x, other) = (zeros([2, 4]), zeros([4, 2]))
    let (four, two) = (zeros([4]), zeros([2]))
    let step = AdamWStep(
      learningRate: 0, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, update: 1, gradientScale: 1)
    let calls: [() throws -> Void] = [
      { try device.linearInputGradient(dY: x, weight: x, adding: false, into: x) },
      { try device.linearInputGradient(dY: x, weight: other, adding: false, into: zeros([2, 4])) },
      {
        try device.linearInputGradient(
          dY: x, weight: zeros([4, 2], .int32), adding: false, into: zeros([2, 2]))
      },
      { try device.linearWeightGradient(x: x, dY: other, weight: nil, bias: nil) },
      { try device.linearWeightGradient(x: x, dY: x, weight: x, bias: nil) },
      {
        try device.linearWeightGradient(x: x, dY: x, weight: zeros([4, 4], .bfloat16), bias: nil)
      },
      { try device.linearWeightGradient(x: x, dY: x, weight: nil, bias: two) },
      { try device.embedGradient(dY: x, ids: [1], into: zeros([3, 4])) },
      { try device.embedGradient(dY: x, ids: [1, 1], into: zeros([3, 2])) },
      { try device.embedGradient(dY: x, ids: [1, 1], into: zeros([3, 4], .bfloat16)) },
      {
        try device.rmsNormGradient(
          dY: other, x: x, weight: four, epsilon: 1, adding: false, into: x, weight: nil)
      },
      {
        try device.rmsNormGradient(
          dY: x, x: x, weight: two, epsilon: 1, adding: false, into: x, weight: nil)
      },
      {
        try device.rmsNormGradient(
          dY: x, x: x, weight: four, epsilon: 1, adding: false, into: other, weight: nil)
      },
      {
        try device.rmsNormGradient(
          dY: x, x: x, weight: four, epsilon: 1, adding: false, into: nil, weight: two)
      },
      {
        try device.layerNormGradient(
          dY: x, x: x, weight: four, epsilon: 1, adding: false, into: nil, weight: nil, bias: two)
      },
      {
        try device.layerNormGradient(
          dY: other, x: x, weight: four, epsilon: 1, adding: false, into: nil, weight: nil,
          bias: nil)
      },
      { try device.geluGradient(dY: x, x: x, into: other) },
      { try device.geluGradient(dY: other, x: x, into: x) },
      { try device.siluMultiplyGradient(dY: x, gate: x, up: other, into: x, up: x) },
      { try device.siluMultiplyGradient(dY: x, gate: x, up: x, into: x, up: other) },
      {
        try device.addScaledGradient(
          dX: x, y: x, scale: two, factors: nil, into: zeros([2, 4]), scale: nil)
      },
      {
        try device.addScaledGradient(
          dX: x, y: x, scale: nil, factors: [1, 1, 1], into: zeros([2, 4]), scale: nil)
      },
      {
        try device.addScaledGradient(dX: x, y: x, scale: nil, factors: nil, into: other, scale: nil)
      },
      { try device.add(other, to: x) },
      {
        try device.rotateGradient(
          x, heads: 1, positions: [0], cosines: two.reshaped([1, 2]), sines: two.reshaped([1, 2]))
      },
      {
        try device.bidirectionalAttentionGradient(
          dY: x, q: x, k: x, v: x, y: x, heads: 3, rowsEach: 2, dQ: x, dK: x, dV: x)
      },
      {
        try device.bidirectionalAttentionGradient(
          dY: x, q: x, k: x, v: x, y: x, heads: 2, rowsEach: 3, dQ: x, dK: x, dV: x)
      },
      {
        try device.bidirectionalAttentionGradient(
          dY: x, q: x, k: x, v: x, y: x, heads: 2, rowsEach: 2, dQ: x, dK: x, dV: other)
      },
      {
        try device.causalAttentionGradient(
          dY: x, q: x, k: x, v: x, y: other, heads: 2, keyValueHeads: 2, sequences: [], dQ: x,
          dK: x, dV: x)
      },
      {
        try device.dropout(x, probability: 0, random: RandomStream(seed: 0, stream: 0), into: other)
      },
      { try device.adamW(x, gradient: other, firstMoment: x, secondMoment: x, step: step) },
      {
        try device.adamW(
          zeros([2, 4], .bfloat16), gradient: x, firstMoment: x, secondMoment: x, step: step)
      },
      { _ = try device.sumOfSquares(zeros([2], .bfloat16)) },
      { try device.clear(zeros([2], .bfloat16)) },
    ]
    for (index, call) in calls.enumerated() {
      #expect(throws: TensorError.self, "call \(index)") { try call() }
    }
    #expect(throws: KernelError.tokenOutOfRange(id: 3, rows: 3)) {
      try device.embedGradient(dY: x, ids: [0, 3], into: zeros([3, 4]))
    }
  }
}
