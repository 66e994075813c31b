import InternVL
import Tensors
import Testing

@Suite struct InternVLModelTests {
  private static let modelCase = ModelCase.golden[0]

  @Test(
    "Stages that leave a layer out, hold one twice, or go on past the end are refused",
    arguments: [[0..<1, 2..<3], [0..<2, 1..<3], [0..<2], [0..<3, 3..<4], [1..<3], []])
  func stages(_ layers: [Range<Int>]) {
    #expect(
      throws: InternVLError.stagesDoNotCover(
        part: "vision encoder", stages: layers, available: 3)
    ) { try Self.modelCase.model(visionLayers: layers) }
    #expect(
      throws: InternVLError.stagesDoNotCover(
        part: "language model", stages: layers, available: 3)
    ) { try Self.modelCase.model(languageLayers: layers) }
  }

  @Test("A prompt has to have tokens, and a placeholder for each image row")
  func prompts() throws {
    let model = try Self.modelCase.model()
    #expect(throws: InternVLError.emptyPrompt) { try model.prefill(1, ids: []) }
    let rows = Tensor(zeros: .float32, [4, 64])
    #expect(throws: InternVLError.placeholderMismatch(placeholders: 3, imageRows: 4)) {
      try model.prefill(1, ids: [505, 505, 505], images: rows, placeholder: 505)
    }
    #expect(throws: InternVLError.placeholderMismatch(placeholders: 0, imageRows: 4)) {
      try model.generateGreedy(ids: [1], images: rows, placeholder: 505, limit: 3)
    }
    // Rows that nobody says the place of would be dropped without a word.
    #expect(throws: InternVLError.placeholderMismatch(placeholders: 0, imageRows: 4)) {
      try model.prefill(1, ids: [505, 505, 505, 505], images: rows)
    }
    #expect(model.length(of: 1) == 0)
  }

  @Test("Generation stops after a stop token and at the limit, and leaves the cache empty")
  func limits() throws {
    let expected = try Self.modelCase.expectation()
    let model = try Self.modelCase.model()
    let images = try model.encode(expected.pixels)
    func generate(limit: Int, stop: Set<Int32> = []) throws -> [Int32] {
      try model.generateGreedy(
        ids: expected.ids, images: images, placeholder: expected.placeholder, limit: limit,
        stop: stop)
    }
    #expect(try generate(limit: 0).isEmpty)
    #expect(try generate(limit: 1) == Array(expected.generated.prefix(1)))
    let third = expected.generated[2]
    let end = try #require(expected.generated.firstIndex(of: third))
    #expect(try generate(limit: 9, stop: [third]) == Array(expected.generated.prefix(end + 1)))
    #expect(model.language[0].cache.tokensInUse == 0)
  }

  @Test("Image rows are the projector's of the vision encoder's output")
  func parts() throws {
    let pixels = try Self.modelCase.expectation().pixels[0]
    let model = try Self.modelCase.model()
    let rows = try model.projectorOutput(model.visionOutput(pixels))
    #expect(rows.bits == (try model.encode(pixels)).bits)
  }

  @Test("Of several greatest logits the first counts")
  func greatest() {
    #expect(InternVLModel.greatest(Tensor([-3, -1, -2, -1], [4])) == 1)
    #expect(InternVLModel.greatest(Tensor([7], [1])) == 0)
  }

  @Test("Text after an answer goes on where the cache ends")
  func turns() throws {
    let model = try Self.modelCase.model(cacheTokens: 256)
    let ids: [Int32] = [6, 438, 463, 271, 18, 7, 6, 447, 264, 437]
    let whole = try model.prefill(1, ids: ids)
    _ = try model.prefill(2, ids: Array(ids[..<4]))
    let rest = try model.prefill(2, ids: Array(ids[4...]))
    #expect(rest.bits == whole.rows(4..<ids.count).bits)
    #expect(model.length(of: 2) == ids.count)
  }
}
