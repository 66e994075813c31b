import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct CachedAttentionTests {
  /// A sequence whose rows pass through a cache in chunks.
  struct Sequence: CustomTestStringConvertible {
    let length: Int
    let heads: Int
    let keyValueHeads: Int
    let size: Int
    let q: Tensor
    let k: Tensor
    let v: Tensor

    init(_ length: Int, heads: Int, keyValueHeads: Int, size: Int, seed: UInt64 = 1) {
      var random = SeededRandom(seed)
      self.length = length
      self.heads = heads
      self.keyValueHeads = keyValueHeads
      self.size = size
      q = random.tensor([length, heads * size], in: -3...3)
      k = random.tensor([length, keyValueHeads * size], in: -3...3)
      v = random.tensor([length, keyValueHeads * size])
    }

    var testDescription: String {
      "\(length) rows, \(heads) heads over \(keyValueHeads) of \(size)"
    }

    func cache(_ type: CacheType) throws -> CacheBlocks {
      try AttentionTests.cache(
        CacheLayout(type: type, keyValueHeads: keyValueHeads, headSize: size), positions: length)
    }

    /// The output of all rows, computed in chunks of the given sizes.
    func output(chunks: [Int], _ type: CacheType, on device: CPUDevice) throws -> Tensor {
      let cache = try cache(type)
      let y = Tensor(zeros: .float32, q.shape)
      var start = 0
      for chunk in chunks {
        let rows = start..<start + chunk
        let span = AttentionSpan(rows: 0..<chunk, position: start, cache: cache)
        try device.appendToCache(
          k: k.rows(rows), v: v.rows(rows), keyValueHeads: keyValueHeads, spans: [span])
        try device.cachedAttention(
          q: q.rows(rows), heads: heads, keyValueHeads: keyValueHeads, spans: [span],
          into: y.rows(rows))
        start += chunk
      }
      return y
    }

    /// The formula, of keys and values as a cache of the type holds them.
    func expected(_ type: CacheType) -> [Double] {
      ReferenceMath.attention(
        q: q.doubles, k: held(k, type), v: held(v, type), heads: heads,
        keyValueHeads: keyValueHeads, size: size, groups: [0..<length], causal: true)
    }

    private func held(_ x: Tensor, _ type: CacheType) -> [Double] {
      let floats = x.floats
      switch type {
      case .float32: return floats.map(Double.init)
      case .bfloat16:
        return floats.map { x in
          let bits = x.bitPattern
          return Double(Float(bitPattern: (bits + 0x7FFF + bits >> 16 & 1) & 0xFFFF_0000))
        }
      case .int8:
        return stride(from: 0, to: floats.count, by: size).flatMap { start in
          let head = floats[start..<start + size]
          let scale = (head.map { abs($0) }.max() ?? 0) / 127
          let factor = scale > 0 ? 1 / scale : 0
          return head.map { Double(($0 * factor).rounded(.toNearestOrEven)) * Double(scale) }
        }
      }
    }
  }

  static let sequences = [
    Sequence(1, heads: 1, keyValueHeads: 1, size: 1),
    Sequence(9, heads: 2, keyValueHeads: 2, size: 20),
    Sequence(15, heads: 4, keyValueHeads: 2, size: 5),
    Sequence(16, heads: 3, keyValueHeads: 1, size: 16),
    Sequence(37, heads: 6, keyValueHeads: 2, size: 24),
    Sequence(50, heads: 7, keyValueHeads: 1, size: 128),
    Sequence(63, heads: 2, keyValueHeads: 2, size: 80),
    Sequence(64, heads: 5, keyValueHeads: 1, size: 21),
    Sequence(65, heads: 4, keyValueHeads: 1, size: 64),
    Sequence(130, heads: 14, keyValueHeads: 2, size: 72),
    Sequence(20, heads: 2, keyValueHeads: 1, size: 3),
    // Beyond one segment.
    Sequence(1041, heads: 3, keyValueHeads: 1, size: 4),
  ]

  @Test("cached attention agrees with the reference", arguments: sequences, CacheType.allCases)
  func reference(sequence: Sequence, type: CacheType) throws {
    try expectEverywhere(sequence.expected(type), tolerance: 4e-6) { device in
      try sequence.output(chunks: [sequence.length], type, on: device)
    }
  }

  @Test(
    "narrower caches stay within what their rounding takes", arguments: sequences.dropLast(),
    [(CacheType.bfloat16, 0.02), (.int8, 0.05)])
  func narrowing(sequence: Sequence, bound: (type: CacheType, error: Double)) throws {
    let device = try #require(TestDevices.byThreads[1])
    let y = try sequence.output(chunks: [sequence.length], bound.type, on: device)
    expectClose(y, sequence.expected(.float32), tolerance: bound.error)
  }

  @Test(
    "cached attention gives the same bits in any chunking", arguments: sequences, CacheType.allCases
  )
  func chunking(sequence: Sequence, type: CacheType) throws {
    var random = SeededRandom(8)
    let first = try #require(TestDevices.byThreads[1])
    let whole = try sequence.output(chunks: [sequence.length], type, on: first)
    for device in TestDevices.all {
      let single = try sequence.output(
        chunks: [Int](repeating: 1, count: sequence.length), type, on: device)
      #expect(single.hasSameBits(as: whole))
      for _ in 0..<3 {
        var chunks: [Int] = []
        var left = sequence.length
        while left > 0 {
          chunks.append(Int.random(in: 1...left, using: &random))
          left -= chunks[chunks.count - 1]
        }
        #expect(try sequence.output(chunks: chunks, type, on: device).hasSameBits(as: whole))
      }
    }
  }

  @Test("sequences in one batch do not touch each other", arguments: CacheType.allCases)
  func batches(type: CacheType) throws {
    let sequences = (0..<3).map { index in
      Sequence(10 + 7 * index, heads: 4, keyValueHeads: 2, size: 20, seed: UInt64(index))
    }
    for device in TestDevices.all {
      let alone = try sequences.map { try $0.output(chunks: [$0.length], type, on: device) }
      let caches = try sequences.map { try $0.cache(type) }
      // The first part of each by itself, the last three rows of all in one batch.
      var spans: [AttentionSpan] = []
      var (q, k, v): ([Float], [Float], [Float]) = ([], [], [])
      for (index, sequence) in sequences.enumerated() {
        let early = sequence.length - 3
        try device.appendToCache(
          k: sequence.k.rows(0..<early), v: sequence.v.rows(0..<early), keyValueHeads: 2,
          spans: [AttentionSpan(rows: 0..<early, position: 0, cache: caches[index])])
        spans.append(
          AttentionSpan(
            rows: 3 * index..<3 * index + 3, position: early, cache: caches[index]))
        q += sequence.q.rows(early..<early + 3).floats
        k += sequence.k.rows(early..<early + 3).floats
        v += sequence.v.rows(early..<early + 3).floats
      }
      try device.appendToCache(
        k: Tensor(k, [9, 40]), v: Tensor(v, [9, 40]), keyValueHeads: 2, spans: spans)
      let y = Tensor(zeros: .float32, [9, 80])
      try device.cachedAttention(
        q: Tensor(q, [9, 80]), heads: 4, keyValueHeads: 2, spans: spans.reversed(), into: y)
      for (index, sequence) in sequences.enumerated() {
        #expect(
          y.rows(3 * index..<3 * index + 3).hasSameBits(
            as: alone[index].rows(sequence.length - 3..<sequence.length)))
      }
    }
  }

  /// One head of keys and values over positions 0…, and the output of a query at the last.
  private func output(
    _ q: [Float], keys: [[Float]], values: [[Float]], type: CacheType = .float32
  ) throws -> [[Float]] {
    let size = q.count
    return try TestDevices.all.map { device in
      let cache = try AttentionTests.cache(
        CacheLayout(type: type, keyValueHeads: 1, headSize: size), positions: keys.count)
      let span = AttentionSpan(rows: 0..<keys.count, position: 0, cache: cache)
      try device.appendToCache(
        k: Tensor(keys.flatMap { $0 }, [keys.count, size]),
        v: Tensor(values.flatMap { $0 }, [values.count, size]), keyValueHeads: 1, spans: [span])
      let y = Tensor(zeros: .float32, [1, size])
      try device.cachedAttention(
        q: Tensor(q, [1, size]), heads: 1, keyValueHeads: 1,
        spans: [AttentionSpan(rows: 0..<1, position: keys.count - 1, cache: cache)], into: y)
      return y.floats
    }
  }

  @Test("large scores neither overflow nor lose the sum", arguments: [4, 68, 1028])
  func largeScores(count: Int) throws {
    var keys = [[Float]](repeating: [0, -1000], count: count)
    keys[1] = [0, 1000]
    keys[count - 2] = [1000, 1000]
    var values = [[Float]](repeating: [7, 7], count: count)
    values[1] = [0, 1000]
    values[count - 2] = [1000, 1000]
    for y in try output([0, 1000], keys: keys, values: values) { #expect(y == [500, 1000]) }
  }

  @Test("a row sees nothing of positions behind its own, whatever they hold")
  func future() throws {
    let (length, heads, size) = (70, 2, 20)
    let clean = Sequence(length, heads: heads, keyValueHeads: 1, size: size)
    let k = Tensor(clean.k.floats, clean.k.shape)
    let v = Tensor(clean.v.floats, clean.v.shape)
    let row = 41
    for tensor in [k, v] {
      tensor.rows(row..<row + 1).withElements(of: Float.self) { $0.update(repeating: .infinity) }
    }
    for type in CacheType.allCases {
      for device in TestDevices.all {
        let expected = try clean.output(chunks: [length], type, on: device)
        let span = AttentionSpan(rows: 0..<length, position: 0, cache: try clean.cache(type))
        let y = Tensor(zeros: .float32, clean.q.shape)
        try device.appendToCache(k: k, v: v, keyValueHeads: 1, spans: [span])
        try device.cachedAttention(
          q: clean.q, heads: heads, keyValueHeads: 1, spans: [span], into: y)
        #expect(y.rows(0..<row).hasSameBits(as: expected.rows(0..<row)))
        #expect(y.rows(row..<length).floats.allSatisfy { $0.isNaN })
      }
    }
  }

  @Test("keys and values that are not finite show", arguments: CacheType.allCases)
  func notFinite(type: CacheType) throws {
    let fine: [[Float]] = [[1, 2], [3, 4], [0, 1]]
    for wrong in [Float.nan, .infinity, -.infinity] {
      let broken: [[Float]] = [[1, 2], [wrong, 4], [0, 1]]
      for y in try output([1, 1], keys: fine, values: broken, type: type) {
        #expect(!y[0].isFinite)
      }
      // A score of −∞ is a key that nobody looks at.
      if wrong == -.infinity, type != .int8 { continue }
      for y in try output([1, 1], keys: broken, values: fine, type: type) {
        #expect(y.allSatisfy { $0.isNaN })
      }
    }
    for y in try output([.nan, 1], keys: fine, values: fine, type: type) {
      #expect(y.allSatisfy { $0.isNaN })
    }
  }

  @Test("zeros and tiny numbers come through a cache of bytes")
  func tinyBytes() throws {
    for y in try output([1, 1], keys: [[0, 0]], values: [[0, 0]], type: .int8) {
      #expect(y == [0, 0])
    }
    let tiny = Float.leastNonzeroMagnitude
    for y in try output([1, 1], keys: [[tiny, 0]], values: [[tiny, -tiny]], type: .int8) {
      #expect(y.allSatisfy { abs($0) <= 127 * tiny })
    }
  }

  @Test("the cache refuses spans outside the batch, short caches and odd blocks")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    let k = Tensor(zeros: .float32, [3, 4])
    let layout = CacheLayout(type: .float32, keyValueHeads: 2, headSize: 2)
    func both(_ rows: Range<Int>, _ position: Int, _ cache: CacheBlocks) throws {
      let span = AttentionSpan(rows: rows, position: position, cache: cache)
      try device.appendToCache(k: k, v: k, keyValueHeads: 2, spans: [span])
      try device.cachedAttention(
        q: k, heads: 2, keyValueHeads: 2, spans: [span], into: Tensor(zeros: .float32, [3, 4]))
    }
    let one = try AttentionTests.cache(layout, positions: 1)
    #expect(one.positions == 64)
    #expect(throws: KernelError.spanOutOfRange(rows: 2..<4, batch: 3)) { try both(2..<4, 0, one) }
    #expect(throws: KernelError.spanOutOfRange(rows: 0..<1, batch: 3)) { try both(0..<1, -1, one) }
    #expect(throws: KernelError.cacheTooShort(positions: 64, needed: 65)) {
      try both(0..<2, 63, one)
    }
    #expect(throws: KernelError.cacheTooShort(positions: 0, needed: 1)) {
      try both(0..<1, 0, CacheBlocks(layout: layout))
    }
    for (heads, size) in [(1, 4), (2, 4), (4, 2), (1, 2)] {
      let odd = CacheLayout(type: .float32, keyValueHeads: heads, headSize: size)
      #expect(throws: TensorError.self) {
        try both(0..<1, 0, AttentionTests.cache(odd, positions: 1))
      }
    }
    var blocks = CacheBlocks(layout: layout)
    #expect(throws: TensorError.self) { try blocks.append(Tensor(zeros: .uint8, [1])) }
    #expect(throws: TensorError.self) {
      try blocks.append(Tensor(zeros: .float32, [layout.blockBytes]))
    }
    #expect(throws: TensorError.self) {
      try device.appendToCache(k: k, v: k, keyValueHeads: 3, spans: [])
    }
    #expect(throws: TensorError.self) {
      try device.cachedAttention(q: k, heads: 2, keyValueHeads: 0, spans: [], into: k)
    }
    try both(1..<1, 0, CacheBlocks(layout: layout))
  }

  @Test(
    "blocks are as large as their layout says",
    arguments: [
      (CacheType.float32, 64, 2 * 64 * 64 * 4), (.bfloat16, 64, 2 * 64 * 64 * 2),
      (.int8, 64, 2 * 64 * 64 + 2 * 64 * 4), (.float32, 5, 64 * (5 + 16) * 4),
    ])
  func layouts(type: CacheType, size: Int, bytes: Int) {
    #expect(CacheLayout(type: type, keyValueHeads: 3, headSize: size).blockBytes == 3 * bytes)
    #expect(CacheLayout.blocks(holding: 0) == 0)
    #expect(CacheLayout.blocks(holding: 64) == 1)
    #expect(CacheLayout.blocks(holding: 65) == 2)
  }
}
