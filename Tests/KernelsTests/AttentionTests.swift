import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct AttentionTests {
  @Test(
    "bidirectional attention agrees with the reference",
    arguments: [(1, 1, 1), (5, 2, 20), (17, 3, 24), (130, 2, 16), (257, 1, 64), (0, 2, 4)])
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

  /// A sequence whose rows pass through the cache in chunks.
  struct Sequence {
    let length: Int
    let heads: Int
    let keyValueHeads: Int
    let size: Int
    let blockPositions: Int
    let q: Tensor
    let k: Tensor
    let v: Tensor

    init(
      length: Int, heads: Int, keyValueHeads: Int, size: Int, blockPositions: Int,
      seed: UInt64 = 1
    ) {
      var random = SeededRandom(seed)
      self.length = length
      self.heads = heads
      self.keyValueHeads = keyValueHeads
      self.size = size
      self.blockPositions = blockPositions
      q = random.tensor([length, heads * size], in: -3...3)
      k = random.tensor([length, keyValueHeads * size], in: -3...3)
      v = random.tensor([length, keyValueHeads * size])
    }

    /// Empty blocks, filled with NaN so that a look beyond the last row shows.
    func blocks() -> [Tensor] {
      (0..<(length + blockPositions - 1) / blockPositions).map { _ in
        let shape = [keyValueHeads, blockPositions, size]
        return Tensor([Float](repeating: .nan, count: shape.reduce(1, *)), shape)
      }
    }

    /// The output of all rows, computed in chunks of the given sizes.
    func output(chunks: [Int], on device: CPUDevice) throws -> Tensor {
      let (keys, values) = (blocks(), blocks())
      let y = Tensor(zeros: .float32, q.shape)
      var start = 0
      for chunk in chunks {
        let rows = start..<start + chunk
        let span = AttentionSpan(rows: 0..<chunk, position: start, keys: keys, values: values)
        try device.appendToCache(
          k: k.rows(rows), v: v.rows(rows), keyValueHeads: keyValueHeads, spans: [span])
        try device.cachedAttention(
          q: q.rows(rows), heads: heads, keyValueHeads: keyValueHeads, spans: [span],
          into: y.rows(rows))
        start += chunk
      }
      return y
    }

    var expected: [Double] {
      let (queries, keys, values) = (q.doubles, k.doubles, v.doubles)
      let (width, narrow) = (heads * size, keyValueHeads * size)
      return (0..<length).flatMap { row in
        (0..<heads).flatMap { head in
          let shared = head / (heads / keyValueHeads)
          func slices(_ all: [Double]) -> [ArraySlice<Double>] {
            (0...row).map {
              all[$0 * narrow + shared * size..<$0 * narrow + (shared + 1) * size]
            }
          }
          let start = row * width + head * size
          return ReferenceMath.attention(
            queries[start..<start + size], keys: slices(keys), values: slices(values))
        }
      }
    }
  }

  static let sequences = [
    Sequence(length: 1, heads: 1, keyValueHeads: 1, size: 1, blockPositions: 1),
    Sequence(length: 9, heads: 2, keyValueHeads: 2, size: 20, blockPositions: 4),
    Sequence(length: 37, heads: 6, keyValueHeads: 2, size: 24, blockPositions: 16),
    Sequence(length: 50, heads: 7, keyValueHeads: 1, size: 128, blockPositions: 32),
    Sequence(length: 33, heads: 14, keyValueHeads: 2, size: 72, blockPositions: 5),
    Sequence(length: 20, heads: 2, keyValueHeads: 1, size: 3, blockPositions: 64),
  ]

  @Test("cached attention agrees with the reference", arguments: sequences)
  func cached(sequence: Sequence) throws {
    try expectEverywhere(sequence.expected, tolerance: 4e-6) { device in
      try sequence.output(chunks: [sequence.length], on: device)
    }
  }

  @Test("cached attention gives the same bits in any chunking", arguments: sequences)
  func chunking(sequence: Sequence) throws {
    var random = SeededRandom(8)
    for device in TestDevices.all {
      let whole = try sequence.output(chunks: [sequence.length], on: device)
      let single = try sequence.output(
        chunks: [Int](repeating: 1, count: sequence.length), on: device)
      #expect(single.hasSameBits(as: whole))
      for _ in 0..<3 {
        var chunks: [Int] = []
        var left = sequence.length
        while left > 0 {
          chunks.append(Int.random(in: 1...left, using: &random))
          left -= chunks[chunks.count - 1]
        }
        #expect(try sequence.output(chunks: chunks, on: device).hasSameBits(as: whole))
      }
    }
  }

  @Test("sequences in one batch do not touch each other")
  func batches() throws {
    let sequences = (0..<3).map { index in
      Sequence(
        length: 10 + 7 * index, heads: 4, keyValueHeads: 2, size: 20, blockPositions: 8,
        seed: UInt64(index))
    }
    for device in TestDevices.all {
      let alone = try sequences.map { try $0.output(chunks: [$0.length], on: device) }
      let caches = sequences.map { ($0.blocks(), $0.blocks()) }
      // The first part of each by itself, the last three rows of all in one batch.
      var spans: [AttentionSpan] = []
      var (q, k, v): ([Float], [Float], [Float]) = ([], [], [])
      for (index, sequence) in sequences.enumerated() {
        let early = sequence.length - 3
        try device.appendToCache(
          k: sequence.k.rows(0..<early), v: sequence.v.rows(0..<early), keyValueHeads: 2,
          spans: [
            AttentionSpan(
              rows: 0..<early, position: 0, keys: caches[index].0, values: caches[index].1)
          ])
        spans.append(
          AttentionSpan(
            rows: 3 * index..<3 * index + 3, position: early, keys: caches[index].0,
            values: caches[index].1))
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

  @Test("large scores neither overflow nor lose the sum")
  func largeScores() throws {
    let device = try CPUDevice(threads: 1)
    let blocks = [
      Tensor([0, 1000, 0, -1000], [1, 2, 2]), Tensor([1000, 1000, 0, 0], [1, 2, 2]),
    ]
    let y = Tensor(zeros: .float32, [1, 2])
    try device.cachedAttention(
      q: Tensor([0, 1000], [1, 2]), heads: 1, keyValueHeads: 1,
      spans: [AttentionSpan(rows: 0..<1, position: 3, keys: blocks, values: blocks)], into: y)
    #expect(y.floats == [500, 1000])
  }

  @Test("the cache refuses spans outside the batch, short caches and odd blocks")
  func cacheRefusals() throws {
    let device = try CPUDevice(threads: 1)
    let k = Tensor(zeros: .float32, [3, 4])
    let block = Tensor(zeros: .float32, [2, 2, 2])
    let odd = Tensor(zeros: .float32, [2, 3, 2])
    func both(_ span: AttentionSpan) throws {
      try device.appendToCache(k: k, v: k, keyValueHeads: 2, spans: [span])
      try device.cachedAttention(
        q: k, heads: 2, keyValueHeads: 2, spans: [span], into: Tensor(zeros: .float32, [3, 4]))
    }
    func span(_ rows: Range<Int>, _ position: Int, _ keys: [Tensor], _ values: [Tensor])
      -> AttentionSpan
    {
      AttentionSpan(rows: rows, position: position, keys: keys, values: values)
    }
    #expect(throws: KernelError.spanOutOfRange(rows: 2..<4, batch: 3)) {
      try both(span(2..<4, 0, [block], [block]))
    }
    #expect(throws: KernelError.spanOutOfRange(rows: 0..<1, batch: 3)) {
      try both(span(0..<1, -1, [block], [block]))
    }
    #expect(throws: KernelError.cacheTooShort(positions: 2, needed: 3)) {
      try both(span(0..<1, 2, [block], [block]))
    }
    #expect(throws: KernelError.cacheTooShort(positions: 0, needed: 1)) {
      try both(span(0..<1, 0, [block], []))
    }
    #expect(throws: TensorError.self) { try both(span(0..<1, 0, [block], [odd])) }
    #expect(throws: TensorError.self) { try both(span(0..<1, 0, [odd, block], [block, block])) }
    #expect(throws: TensorError.self) {
      try device.appendToCache(k: k, v: k, keyValueHeads: 3, spans: [])
    }
    #expect(throws: TensorError.self) {
      try device.cachedAttention(q: k, heads: 2, keyValueHeads: 0, spans: [], into: k)
    }
    try both(span(1..<1, 0, [], []))
  }
}
