import Checkpoint
import InternVL
import Kernels
import Support
import Tensors
import Testing

@Suite struct LanguageStageTests {
  private static let modelCase = ModelCase.golden[0]

  private func stage(
    _ layers: Range<Int> = 0..<3, cacheTokens: Int = 256, cacheType: CacheType = .float32
  ) throws -> LanguageStage {
    let folder = Self.modelCase.checkpoint
    return try LanguageStage(
      ModelConfiguration.load(folder: folder), layers: layers,
      checkpoint: CheckpointReader(folder: folder), device: CPUDevice(threads: 1),
      cacheTokens: cacheTokens, cacheType: cacheType)
  }

  private func hidden(_ rows: Int) -> Tensor { Tensor(zeros: .float32, [rows, 64]) }

  @Test("A stage says what it holds")
  func description() throws {
    let whole = try stage()
    #expect(whole.isFirst && whole.isLast)
    #expect(whole.layerCount == 3)
    // All parameters of the language model, as the fixture counts them.
    #expect(whole.weightBytes == 204_224 * 4)
    let parts = try [stage(0..<1), stage(1..<2), stage(2..<3)]
    #expect(parts.map(\.isFirst) == [true, false, false])
    #expect(parts.map(\.isLast) == [false, false, true])
    #expect(parts.map(\.weightBytes).reduce(0, +) == whole.weightBytes)
    #expect(whole.workingBytes > whole.cache.byteLimit)
  }

  @Test("A narrower cache takes fewer bytes, changes little, and nothing by chunks")
  func cacheTypes() throws {
    let ids = (0..<70).map { Int32($0 % 50) }
    func output(_ type: CacheType, chunks: [Int]) throws -> Tensor {
      let stage = try stage(cacheType: type)
      let x = Tensor(zeros: .float32, [ids.count, stage.width])
      try stage.embed(ids: ids, into: x)
      var start = 0
      for chunk in chunks {
        try stage.forward(
          x.rows(start..<start + chunk),
          steps: [SequenceRows(sequence: 1, position: start, rows: 0..<chunk)])
        start += chunk
      }
      return x
    }
    let exact = try output(.float32, chunks: [70])
    for (type, bound) in [(CacheType.float32, Float(0)), (.bfloat16, 0.02), (.int8, 0.05)] {
      let whole = try output(type, chunks: [70])
      #expect(try output(type, chunks: [1, 40, 28, 1]).hasSameBits(as: whole))
      let scale = exact.floats.map { abs($0) }.max() ?? 0
      let error = zip(whole.floats, exact.floats).map { abs($0 - $1) }.max() ?? .infinity
      #expect(error <= bound * scale)
      #expect((error > 0) == (type != .float32))
    }
    let bytes = try CacheType.allCases.map { try stage(cacheType: $0).cache.byteLimit }
    #expect(bytes == bytes.sorted(by: >) && Set(bytes).count == 3)
    #expect(
      try stage(cacheType: .int8).workingBytes == stage().workingBytes - bytes[0] + bytes[2])
  }

  @Test("Tied embeddings are held as a table of rows and packed as a head, wherever the ends are")
  func tied() throws {
    let modelCase = try #require(ModelCase.variants.first { $0.name == "variants/tied" })
    let whole = try modelCase.model().language
    let parts = try modelCase.model(languageLayers: [0..<1, 1..<2]).language
    #expect(parts.map(\.weightBytes).reduce(0, +) == whole[0].weightBytes)
  }

  @Test(
    "Layers outside the model are refused",
    arguments: [0..<4, 3..<4, 2..<2, -1..<2, 3..<3])
  func layers(_ layers: Range<Int>) {
    #expect(
      throws: InternVLError.layersOutsideModel(
        part: "language model", layers: layers, available: 3)
    ) { try stage(layers) }
  }

  @Test(
    "A cache that no machine could hold is refused", arguments: [-1, Int.min, Int.max, 1 << 45])
  func budget(tokens: Int) {
    // Three layers, keys and values, two heads of sixteen float32.
    let maximum = (1 << 48) / (3 * 2 * 2 * 16 * 4)
    #expect(throws: InternVLError.cacheBudget(tokens: tokens, maximum: maximum)) {
      try stage(cacheTokens: tokens)
    }
  }

  @Test("Only the first stage embeds, and only the last gives logits")
  func wrongStage() throws {
    let middle = try stage(1..<2)
    #expect(throws: InternVLError.wrongStage(what: "embed tokens", layers: 1..<2, needed: "first"))
    {
      try middle.embed(ids: [1], into: hidden(1))
    }
    #expect(throws: InternVLError.wrongStage(what: "compute logits", layers: 1..<2, needed: "last"))
    { try middle.logits(hidden(1), into: Tensor(zeros: .float32, [1, 512])) }
  }

  @Test("A step whose sequences do not cover its rows in order is refused, and changes nothing")
  func coverage() throws {
    let stage = try stage()
    func step(_ sequence: UInt64, _ rows: Range<Int>, at position: Int = 0) -> SequenceRows {
      SequenceRows(sequence: sequence, position: position, rows: rows)
    }
    let refused: [([SequenceRows], InternVLError)] = [
      ([], .rowsNotCovered(sequence: 0, rows: 0..<4, expectedStart: 4, total: 4)),
      ([step(1, 0..<3)], .rowsNotCovered(sequence: 1, rows: 3..<4, expectedStart: 4, total: 4)),
      ([step(1, 1..<4)], .rowsNotCovered(sequence: 1, rows: 1..<4, expectedStart: 0, total: 4)),
      ([step(1, 0..<5)], .rowsNotCovered(sequence: 1, rows: 0..<5, expectedStart: 0, total: 4)),
      (
        [step(1, 0..<2), step(2, 1..<4)],
        .rowsNotCovered(sequence: 2, rows: 1..<4, expectedStart: 2, total: 4)
      ),
      (
        [step(1, 0..<4), step(2, 4..<4)],
        .rowsNotCovered(sequence: 2, rows: 4..<4, expectedStart: 4, total: 4)
      ),
      ([step(1, 0..<2), step(1, 2..<4, at: 2)], .sequenceTwice(sequence: 1)),
      ([step(1, 0..<4, at: 1)], .positionGap(sequence: 1, position: 1, cached: 0)),
      ([step(1, 0..<4, at: -1)], .positionGap(sequence: 1, position: -1, cached: 0)),
    ]
    for (steps, error) in refused {
      #expect(throws: error) { try stage.forward(hidden(4), steps: steps) }
      #expect(stage.cache.sequences.isEmpty)
    }
  }

  @Test("A step past the last position is refused")
  func context() throws {
    let stage = try stage(cacheTokens: 4096 + 64)
    let rows = 4097
    #expect(throws: InternVLError.beyondContext(sequence: 1, end: rows, context: 4096)) {
      try stage.forward(
        hidden(rows), steps: [SequenceRows(sequence: 1, position: 0, rows: 0..<rows)])
    }
  }

  @Test("A full cache ends no other sequence, and serves again when one is released")
  func fullCache() throws {
    let stage = try stage(cacheTokens: 128)
    func forward(_ sequence: UInt64, _ position: Int, _ count: Int) throws {
      try stage.forward(
        hidden(count),
        steps: [SequenceRows(sequence: sequence, position: position, rows: 0..<count)])
    }
    try forward(1, 0, 64)
    try forward(2, 0, 30)
    #expect(
      throws: InternVLError.cacheFull(sequence: 1, tokens: 65, freeTokens: 0, capacity: 128)
    ) { try forward(1, 64, 1) }
    #expect(stage.cache.length(of: 1) == 64)
    try forward(2, 30, 1)
    stage.cache.release(sequence: 2)
    try forward(1, 64, 1)
    #expect(stage.cache.length(of: 1) == 65)
    #expect(stage.cache.length(of: 2) == nil)
  }

  @Test("Image rows outside the step, or of another width, are refused")
  func imageRows() throws {
    let stage = try stage()
    for row in [-1, 2, 3, Int.max] {
      #expect(throws: InternVLError.imageRowsOutsideStep(row: row, count: 2, step: 3)) {
        try stage.embed(
          ids: [1, 2, 3], imageRows: [ImageRows(row: row, features: hidden(2))],
          into: hidden(3))
      }
    }
    #expect(throws: TensorError.self) {
      try stage.embed(
        ids: [1], imageRows: [ImageRows(row: 0, features: Tensor(zeros: .float32, [1, 32]))],
        into: hidden(1))
    }
    #expect(throws: TensorError.self) { try stage.embed(ids: [1, 2], into: hidden(3)) }
    #expect(throws: KernelError.tokenOutOfRange(id: 512, rows: 512)) {
      try stage.embed(ids: [512], into: hidden(1))
    }
  }

  @Test("Image rows go to the placeholders, in order")
  func places() throws {
    let rows = Tensor((0..<10).map { Float($0) }, [5, 2])
    let places = try ImageRows.places(of: rows, in: [9, 1, 9, 9, 2, 9, 9], placeholder: 9)
    #expect(places.map(\.row) == [0, 2, 5])
    #expect(places.map(\.features.floats) == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9]])
    #expect(try ImageRows.places(of: nil, in: [1, 2], placeholder: 9).isEmpty)
    #expect(throws: InternVLError.placeholderMismatch(placeholders: 2, imageRows: 5)) {
      try ImageRows.places(of: rows, in: [9, 9, 1], placeholder: 9)
    }
    #expect(throws: InternVLError.placeholderMismatch(placeholders: 1, imageRows: 0)) {
      try ImageRows.places(of: nil, in: [9], placeholder: 9)
    }
  }
}
