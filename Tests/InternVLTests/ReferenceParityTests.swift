import InternVL
import Kernels
import Tensors
import Testing

/// The model against what the reference implementation computed.
@Suite struct ReferenceParityTests {
  /// Largest difference over largest magnitude. The reference sums in another order.
  static let tolerance: Float = 1e-5

  @Test("The vision encoder's output is the reference's", arguments: ModelCase.all)
  func vision(_ modelCase: ModelCase) throws {
    let expected = try modelCase.expectation()
    let model = try modelCase.model()
    for tile in 0..<expected.pixels.shape[0] {
      let found = try model.visionOutput(expected.pixels[tile])
      #expect(relativeDifference(found, expected.vision[tile]) < Self.tolerance)
    }
  }

  @Test("The image rows are the reference's", arguments: ModelCase.all)
  func imageRows(_ modelCase: ModelCase) throws {
    let expected = try modelCase.expectation()
    let found = try modelCase.model().encode(expected.pixels)
    #expect(found.shape == expected.projector.shape)
    #expect(relativeDifference(found, expected.projector) < Self.tolerance)
  }

  @Test("The logits of every position of the prompt are the reference's", arguments: ModelCase.all)
  func logits(_ modelCase: ModelCase) throws {
    let expected = try modelCase.expectation()
    let model = try modelCase.model()
    let found = try model.prefill(
      1, ids: expected.ids, images: model.encode(expected.pixels),
      placeholder: expected.placeholder)
    #expect(found.shape == expected.logits.shape)
    #expect(relativeDifference(found, expected.logits) < Self.tolerance)
  }

  @Test("Greedy decoding gives the reference's tokens", arguments: ModelCase.all)
  func greedy(_ modelCase: ModelCase) throws {
    let expected = try modelCase.expectation()
    let model = try modelCase.model()
    let found = try model.generateGreedy(
      ids: expected.ids, images: model.encode(expected.pixels),
      placeholder: expected.placeholder, limit: expected.generated.count)
    // Where the best two are this close, a tie may break either way, and all after it differs.
    let certain = expected.margins.prefix { $0 > 1e-3 }.count
    #expect(certain > 0)
    #expect(found.count == expected.generated.count)
    #expect(found.prefix(certain) == expected.generated.prefix(certain))
    #expect(model.language[0].cache.sequences.isEmpty)
  }

  @Test(
    "The logits behind every generated token are the reference's", arguments: ModelCase.variants)
  func decodeLogits(_ modelCase: ModelCase) throws {
    let expected = try modelCase.expectation()
    let steps = try #require(expected.decodeLogits)
    let model = try modelCase.model()
    _ = try model.prefill(
      1, ids: expected.ids, images: model.encode(expected.pixels),
      placeholder: expected.placeholder)
    for (step, token) in expected.generated.dropLast().enumerated() {
      let found = try model.decode([(1, token)])
      #expect(relativeDifference(found[0], steps[step + 1]) < Self.tolerance, "step \(step + 1)")
    }
  }

  @Test("Every vision layer's output has the reference's statistics", arguments: ModelCase.golden)
  func visionLayers(_ modelCase: ModelCase) throws {
    let states = try GoldenFile.load(modelCase.folder).visionLayers
    let expected = try modelCase.expectation()
    let single = (0..<states.count - 1).map { $0..<$0 + 1 }
    let model = try modelCase.model(visionLayers: single)
    let hidden = Tensor(uninitialized: .float32, model.vision[0].hiddenShape)
    try model.vision[0].embed(expected.pixels[0], into: hidden)
    expect(hidden.floats, states[0], "embeddings")
    for (layer, stage) in model.vision.enumerated() {
      try stage.forward(hidden)
      expect(hidden.floats, states[layer + 1], "layer \(layer)")
    }
  }

  @Test(
    "Every decoder layer's last row has the reference's statistics", arguments: ModelCase.golden)
  func languageLayers(_ modelCase: ModelCase) throws {
    let states = try GoldenFile.load(modelCase.folder).languageLayers
    let expected = try modelCase.expectation()
    let count = expected.ids.count
    let model = try modelCase.model(languageLayers: (0..<states.count - 1).map { $0..<$0 + 1 })
    let places = try ImageRows.places(
      of: model.encode(expected.pixels), in: expected.ids, placeholder: expected.placeholder)
    let hidden = Tensor(uninitialized: .float32, [count, model.language[0].width])
    try model.language[0].embed(ids: expected.ids, imageRows: places, into: hidden)
    expect(hidden[count - 1].floats, states[0], "embeddings")
    // The reference's last state is behind the final norm; the logits cover that one.
    for (layer, stage) in model.language.dropLast().enumerated() {
      try stage.forward(hidden, steps: [SequenceRows(sequence: 1, position: 0, rows: 0..<count)])
      expect(hidden[count - 1].floats, states[layer + 1], "layer \(layer)")
    }
  }

  private func expect(
    _ found: [Float], _ expected: GoldenFile.Statistics, _ what: Comment,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let values = found.map(Double.init)
    let count = Double(values.count)
    let mean = values.reduce(0, +) / count
    let squares = values.reduce(0) { $0 + $1 * $1 }
    let spread = (squares / count - mean * mean).squareRoot()
    let bound = expected.absmax * Double(Self.tolerance)
    #expect(abs(mean - expected.mean) < bound, what, sourceLocation: sourceLocation)
    #expect(abs(spread - expected.std) < 10 * bound, what, sourceLocation: sourceLocation)
    #expect(
      abs(squares.squareRoot() - expected.l2) < bound * count.squareRoot(), what,
      sourceLocation: sourceLocation)
    for (found, expected) in [
      (Array(found.prefix(expected.first.count)), expected.first),
      (Array(found.suffix(expected.last.count)), expected.last),
    ] {
      for (a, b) in zip(found, expected) {
        #expect(Double(abs(a - b)) < bound, what, sourceLocation: sourceLocation)
      }
    }
  }
}
