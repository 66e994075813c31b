import Checkpoint
import InternVL
import Kernels
import Support
import Tensors
import Testing

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

@Suite struct ModelComparisonTests {
  private static let golden = ModelCase.golden[0]

  /// Another model of the golden one's shape.
  private func other() throws -> InternVLModel {
    let folder = "\(FileManager.default.temporaryDirectory.path)/comparison-\(UUID())"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let configuration = try ModelConfiguration.load(folder: Self.golden.checkpoint)
    try RandomModel.write(
      configuration, seed: 5, scalarType: .float32, to: folder, tokenizerFolder: nil)
    return try InternVLModel(folder: folder, device: CPUDevice(threads: 1), cacheTokens: 512)
  }

  private func comparison(placeholder: Int32? = nil) throws -> ModelComparison {
    try ModelComparison(
      reference: Self.golden.model(cacheTokens: 512), other: other(), placeholder: placeholder)
  }

  private func ids(_ count: Int) -> [Int32] { (0..<count).map { Int32(10 + $0 * 31 % 400) } }

  @Test(arguments: [2, 129, 260])
  func `piece by piece is as in one`(count: Int) throws {
    let comparison = try comparison()
    let ids = ids(count)
    var distance = PredictionDistance()
    try comparison.add(
      ids, pixels: nil, counts: [Bool](repeating: true, count: count), to: &distance)
    var expected = PredictionDistance()
    let logits = try [comparison.reference, comparison.other].map {
      try $0.prefill(7, ids: ids)
    }
    for position in 0..<count - 1 {
      expected.add(
        reference: logits[0][position], other: logits[1][position], target: ids[position + 1])
    }
    #expect(distance.divergences == expected.divergences && distance.count == count - 1)
    #expect(distance.agreements == expected.agreements)
    #expect(distance.meanLosses.other == expected.meanLosses.other)
    #expect(distance.mean > 1e-3)
  }

  @Test func `only predictions of tokens that count are compared`() throws {
    let comparison = try comparison()
    let ids = ids(40)
    var all = PredictionDistance()
    try comparison.add(ids, pixels: nil, counts: ids.map { _ in true }, to: &all)
    var some = PredictionDistance()
    let places = [3, 17, 18, 31]
    try comparison.add(
      ids, pixels: nil, counts: ids.indices.map { places.contains($0) }, to: &some)
    #expect(some.divergences == places.map { all.divergences[$0 - 1] })
    for counts in [[true, false, false], [false, false, false], [true], []] {
      try comparison.add(
        Array(ids.prefix(counts.count)), pixels: nil, counts: counts, to: &some)
    }
    #expect(some.count == 4)
  }

  @Test func `pictures are read by both models`() throws {
    let expectation = try Self.golden.expectation()
    let comparison = try comparison(placeholder: expectation.placeholder)
    let ids = expectation.ids
    let counts = ids.map { $0 != expectation.placeholder }
    var distance = PredictionDistance()
    try comparison.add(ids, pixels: expectation.pixels, counts: counts, to: &distance)
    var expected = PredictionDistance()
    let logits = try [comparison.reference, comparison.other].map { model in
      try model.prefill(
        7, ids: ids, images: model.encode(expectation.pixels),
        placeholder: expectation.placeholder)
    }
    for position in ids.indices.dropLast() where counts[position + 1] {
      expected.add(
        reference: logits[0][position], other: logits[1][position], target: ids[position + 1])
    }
    #expect(distance.divergences == expected.divergences && distance.count > 5)
  }

  @Test func `a model is at no distance from itself`() throws {
    let model = try Self.golden.model(cacheTokens: 512)
    let comparison = ModelComparison(reference: model, other: model, placeholder: nil)
    var distance = PredictionDistance()
    try comparison.add(ids(20), pixels: nil, counts: ids(20).map { _ in true }, to: &distance)
    #expect(distance.agreement == 1 && distance.mean < 1e-12 && distance.count == 19)
  }

  @Test func `continuations are the reference's own, each with another first token`() throws {
    let comparison = try comparison()
    let model = comparison.reference
    let prompts = [ids(5), ids(9), ids(2)]
    let first = try comparison.continuations(of: prompts, rank: 0, limit: 12, ends: [])
    for (prompt, text) in zip(prompts, first) {
      #expect(
        try text == prompt + model.generateGreedy(ids: prompt, limit: 12, sequence: 99))
    }
    let second = try comparison.continuations(of: prompts, rank: 1, limit: 12, ends: [])
    for (prompt, text) in zip(prompts, second) {
      let begun = Array(text.prefix(prompt.count + 1))
      #expect(text[prompt.count] != first[0][prompts[0].count] || prompt != prompts[0])
      #expect(
        try text == begun + model.generateGreedy(ids: begun, limit: 11, sequence: 99))
    }
    // An end is the last token of an answer, also where it is the first.
    let end = first[1][prompts[1].count + 3]
    let cut = try comparison.continuations(of: prompts, rank: 0, limit: 12, ends: [end])
    for (index, text) in cut.enumerated() {
      let whole = first[index]
      let answer = whole[prompts[index].count...]
      let length = (answer.firstIndex(of: end) ?? whole.count - 1) + 1
      #expect(text == Array(whole.prefix(length)))
    }
    #expect(try comparison.continuations(of: prompts, rank: 0, limit: 0, ends: []) == prompts)
    #expect(
      try comparison.continuations(of: [ids(3)], rank: 100_000, limit: 1, ends: [])[0].count == 4)
  }
}
