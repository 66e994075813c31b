import InternVL
import Kernels
import Tensors
import Testing

/// What must not change a single bit of a result: splits, chunks, company, threads.
@Suite struct SameBitsTests {
  /// Golden cases, and what differs from them in how rows depend on positions.
  static let cases =
    ModelCase.golden
    + ModelCase.variants.filter {
      ["variants/rope-dynamic", "variants/mixed-bf16", "variants/tiles"].contains($0.name)
    }

  /// Vision output, image rows, prompt logits, and logits of the steps that follow.
  private func run(_ modelCase: ModelCase, _ model: InternVLModel, chunk: Int? = nil) throws
    -> [[UInt32]]
  {
    let expected = try modelCase.expectation()
    let images = try model.encode(expected.pixels)
    let prompt = try model.prefill(
      1, ids: expected.ids, images: images, placeholder: expected.placeholder, chunk: chunk)
    var results = [images.bits, prompt.bits]
    for token in expected.generated.prefix(5) {
      results.append(try model.decode([(1, token)]).bits)
    }
    return results
  }

  /// Every way to cut `0..<count` into ranges.
  private func cuts(_ count: Int) -> [[Range<Int>]] {
    (0..<1 << max(count - 1, 0)).map { pattern in
      let bounds = [0] + (1..<max(count, 1)).filter { pattern >> ($0 - 1) & 1 == 1 } + [count]
      return zip(bounds, bounds.dropFirst()).map { $0..<$1 }
    }
  }

  @Test("Every split of the layers into stages", arguments: cases)
  func splits(_ modelCase: ModelCase) throws {
    let whole = try modelCase.model()
    let expected = try run(modelCase, whole)
    for layers in cuts(whole.configuration.usedVisionLayers) {
      let found = try run(modelCase, modelCase.model(visionLayers: layers))
      #expect(found == expected, "vision \(layers)")
    }
    for layers in cuts(whole.configuration.language.layerCount) {
      let found = try run(modelCase, modelCase.model(languageLayers: layers))
      #expect(found == expected, "language \(layers)")
    }
  }

  @Test("Every size of the prompt's chunks", arguments: cases)
  func chunks(_ modelCase: ModelCase) throws {
    let expected = try run(modelCase, modelCase.model())
    for chunk in [1, 2, 7, 32, 33, 64] {
      #expect(try run(modelCase, modelCase.model(), chunk: chunk) == expected, "chunks of \(chunk)")
    }
  }

  @Test("Every number of threads", arguments: cases)
  func threads(_ modelCase: ModelCase) throws {
    let expected = try run(modelCase, modelCase.model())
    for threads in [2, 3, 5] {
      #expect(try run(modelCase, modelCase.model(threads: threads)) == expected)
    }
  }

  @Test("A prompt longer than one pass may have rows")
  func longPrompt() throws {
    let model = try ModelCase.golden[0].model()
    let ids = (0..<LanguageStage.maximumRows * 2 + 37).map { Int32($0 * 7919 % 503) }
    let whole = try model.prefill(1, ids: ids)
    let parts = try model.prefill(2, ids: ids, chunk: 100)
    #expect(whole.bits == parts.bits)
    #expect(model.length(of: 1) == ids.count)
  }

  @Test("The company of other sequences", arguments: cases)
  func company(_ modelCase: ModelCase) throws {
    let expected = try modelCase.expectation()
    let model = try modelCase.model(cacheTokens: 1024)
    let images = try model.encode(expected.pixels)
    let prompt = try model.prefill(
      1, ids: expected.ids, images: images, placeholder: expected.placeholder)
    // Alone.
    var alone: [[UInt32]] = []
    for token in expected.generated.prefix(4) {
      alone.append(try model.decode([(1, token)]).bits)
    }
    // Beside others of other lengths, in another place of the batch each time.
    model.release(1)
    for other: UInt64 in 2...9 {
      _ = try model.prefill(
        other, ids: (0..<Int32(other * 3)).map { ($0 * 5 + Int32(other)) % 90 })
    }
    _ = try model.prefill(
      1, ids: expected.ids, images: images, placeholder: expected.placeholder)
    for (step, token) in expected.generated.prefix(4).enumerated() {
      var batch: [(sequence: UInt64, id: Int32)] = (2...9).map { ($0, Int32($0)) }
      batch.insert((1, token), at: 2 * step)
      #expect(try model.decode(batch)[2 * step].bits == alone[step], "step \(step)")
    }
    // The prompt itself in a step in which others decode.
    model.release(1)
    let places = try ImageRows.places(
      of: images, in: expected.ids, placeholder: expected.placeholder
    ).map { ImageRows(row: $0.row + 1, features: $0.features) }
    let count = expected.ids.count
    let logits = Tensor(uninitialized: .float32, [count + 2, model.language[0].vocabulary])
    let steps = [
      SequenceRows(sequence: 2, position: model.length(of: 2), rows: 0..<1),
      SequenceRows(sequence: 1, position: 0, rows: 1..<1 + count, promptLength: count),
      SequenceRows(sequence: 3, position: model.length(of: 3), rows: 1 + count..<2 + count),
    ]
    try model.forward([3] + expected.ids + [4], imageRows: places, steps: steps, into: logits)
    #expect(logits.rows(1..<1 + count).bits == prompt.bits)
  }

  @Test("Going back to an earlier position")
  func rewinding() throws {
    let modelCase = ModelCase.golden[0]
    let model = try modelCase.model()
    let ids: [Int32] = [5, 9, 2, 7, 7, 1]
    let first = try model.prefill(1, ids: ids)
    _ = try model.decode([(1, 3)])
    let logits = Tensor(uninitialized: .float32, [2, model.language[0].vocabulary])
    try model.forward(
      Array(ids[4...]), imageRows: [], steps: [SequenceRows(sequence: 1, position: 4, rows: 0..<2)],
      into: logits)
    #expect(logits.bits == first.rows(4..<6).bits)
    #expect(model.length(of: 1) == 6)
  }

  @Test("One tile among several")
  func tiles() throws {
    let modelCase = try #require(ModelCase.variants.first { $0.name == "variants/tiles" })
    let pixels = try modelCase.expectation().pixels
    let model = try modelCase.model()
    let both = try model.encode(pixels)
    let tokens = model.projector.tokenCount
    for tile in 0..<2 {
      let alone = try model.encode(pixels[tile])
      #expect(alone.bits == both.rows(tile * tokens..<(tile + 1) * tokens).bits)
    }
  }
}
