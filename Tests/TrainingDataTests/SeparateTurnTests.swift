import Checkpoint
import Support
import Testing

@testable import TrainingData

/// Turns that are learnt beside each other, hidden from each other.
@Suite struct SeparateTurnTests {
  private typealias Turn = SampleRecord.Turn

  private static let answered = [
    ("What is it?", "A circle."), ("Which colour does it have?", "It is red, 红色."),
    (" ", " blank "), ("3 + 4?", "7"),
  ]

  private func encoder(limit: Int = 512) throws -> SampleEncoder {
    try SampleEncoder(
      modelFolder: DataFolder.model, configuration: .load(folder: DataFolder.model),
      maxSequenceLength: limit)
  }

  private func conversation(_ pairs: [(String, String)]) -> [Turn] {
    pairs.flatMap { [Turn(from: "human", value: $0.0), Turn(from: "gpt", value: $0.1)] }
  }

  private func encode(
    _ pairs: [(String, String)], images: Int = 1, _ encoder: SampleEncoder
  ) throws -> SampleEncoder.Encoded? {
    let record = SampleRecord(
      images: (0..<images).map { "\($0).jpg" }, conversations: conversation(pairs))
    return try encoder.encodeSeparately(
      SampleEncoder.turns(record), tiles: Array(repeating: 2, count: images))
  }

  /// The turns with their labels behind the prefix, one by one.
  private func parts(
    _ encoded: SampleEncoder.Encoded
  ) -> (prefix: [Int32], turns: [(ids: [Int32], labels: [Int32])]) {
    var start = encoded.ids.count - encoded.turns.reduce(0, +)
    let prefix = Array(encoded.ids[..<start])
    let turns = encoded.turns.map { count in
      defer { start += count }
      return (
        Array(encoded.ids[start..<start + count]), Array(encoded.labels[start..<start + count])
      )
    }
    return (prefix, turns)
  }

  @Test(arguments: [1, 2, 3]) func `prefix and turn are the tokens of a chat of one question`(
    _ images: Int
  ) throws {
    let encoder = try encoder()
    let lead = String(repeating: "<image>\n", count: images)
    var pairs = Self.answered
    pairs[0].0 = lead + pairs[0].0
    let encoded = try #require(try encode(pairs, images: images, encoder))
    let (prefix, turns) = parts(encoded)
    #expect(turns.count == 4)
    #expect(encoder.imageTokens(prefix) == images * 2 * encoder.imageTokenCount)
    #expect(encoded.labels.prefix(prefix.count).allSatisfy { $0 == -100 })
    for ((question, answer), turn) in zip(Self.answered, turns) {
      let record = SampleRecord(
        images: (0..<images).map { "\($0).jpg" },
        conversations: conversation([(lead + question, answer)]))
      let alone = try encoder.encode(
        SampleEncoder.turns(record), tiles: Array(repeating: 2, count: images))
      #expect(alone.ids == prefix + turn.ids)
      #expect(alone.labels == prefix.map { _ in -100 } + turn.labels)
    }
    // The prefix ends behind the line break.
    let tail = prefix.suffix(while: { encoder.imageTokens([$0]) == 0 })
    #expect(try encoder.encode("</img>\n").suffix(tail.count) == tail)
    #expect(tail.count >= 2)
  }

  @Test func `a picture that nobody marks stands at the beginning`() throws {
    let encoder = try encoder()
    let marked = try encode([("<image>\nA?", "a"), ("B?", "b")], encoder)
    #expect(try encode([("A?", "a"), ("B?", "b")], encoder) == marked)
    #expect(marked?.turns.count == 2)
  }

  @Test(arguments: [
    ([("<image>\nOne?", "1")], 1), ([("One?", "1"), ("Two?", "2")], 0),
    ([("One? <image>\n", "1"), ("Two?", "2")], 1), ([("<image>One?", "1"), ("Two?", "2")], 1),
    ([("<image>\n", "1"), ("Two?", "2")], 1), ([("<image>\n \n", "1"), ("Two?", "2")], 1),
    ([("One?", "1"), ("<image>\n<image>\nTwo?", "2")], 2),
    ([("<image>\nOne?", "1"), ("<image>\nTwo?", "2")], 2),
    ([("<image>\nOne <image>\nor?", "1"), ("Two?", "2")], 2),
    ([(" <image>\nOne?", "1"), ("Two?", "2")], 1),
  ])
  func `conversations that cannot do without each other stay whole`(
    _ pairs: [(String, String)], _ images: Int
  ) throws {
    #expect(try encode(pairs, images: images, encoder()) == nil)
  }

  @Test func `the limit cuts the last turns off, and turns that learn nothing`() throws {
    let pairs = [
      ("<image>\nWhat is it?", "A circle."), ("Which colour does it have?", "It is red."),
      ("Where?", "In the middle of the field."),
    ]
    let whole = try #require(try encode(pairs, encoder()))
    let (prefix, turns) = parts(whole)
    for limit in prefix.count + 2...whole.ids.count {
      let first = turns[0]
      guard first.labels.prefix(limit - prefix.count).contains(where: { $0 != -100 }) else {
        let flaw = #expect(throws: UnplacedFlaw.self) { try encode(pairs, encoder(limit: limit)) }
        #expect(flaw?.kind == .nothingLearnt)
        continue
      }
      let cut = try #require(try encode(pairs, encoder(limit: limit)))
      #expect(cut.ids.count <= limit && cut.uncutCount == whole.ids.count)
      #expect(cut.ids == Array(whole.ids.prefix(cut.ids.count)))
      #expect(cut.labels == Array(whole.labels.prefix(cut.ids.count)))
      #expect(cut.turns.isEmpty || cut.turns.count > 1)
      // Of a turn that is left, something is learnt.
      if let last = cut.turns.last {
        #expect(cut.labels.suffix(last).contains { $0 != -100 })
      }
      if limit == whole.ids.count { #expect(cut == whole) }
    }
    let flaw = #expect(throws: UnplacedFlaw.self) {
      try encode(pairs, encoder(limit: prefix.count - 3))
    }
    #expect(flaw?.kind == .cutImage)
  }

  @Test func `a share of the samples is drawn by seed and key`() {
    func drawn(_ share: Double, seed: UInt64 = 42) -> [UInt64] {
      let separation = TurnSeparation(share: share, seed: seed)
      return (0..<4000).filter { separation.separates(key: $0) }
    }
    #expect(drawn(0).isEmpty)
    #expect(drawn(1).count == 4000)
    #expect(3100...3300 ~= drawn(0.8).count)
    #expect(Set(drawn(0.5)).isSubset(of: drawn(0.8)))
    #expect(drawn(0.8, seed: 43) != drawn(0.8))
    #expect(TurnSeparation(share: 1).separates(key: .max))
    #expect(Array(drawn(0.3).prefix(8)) == [0, 3, 4, 6, 9, 19, 23, 25])
  }

  @Test func `a source separates the turns of the samples that are drawn`() async throws {
    let folders = [try DataFolder(), try DataFolder()]
    for folder in folders { try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg") }
    let turns = #"""
      {"image": "image.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
       {"from": "gpt", "value": "A circle."}, {"from": "human", "value": "Is it round?"},
       {"from": "gpt", "value": "Yes."}]}
      """#.replacing("\n", with: "")
    let lines = (0..<12).map { $0 % 3 == 2 ? line() : turns }
    let whole = try folders[0].source(lines)
    var options = DataOptions()
    options.separation = TurnSeparation(share: 0.5, seed: 7)
    let source = try folders[1].source(lines, options: options)
    let indices = Array(0..<12)
    var kinds: Set<Bool> = []
    let outlines = SampleStream(outlinesOf: source, indices, workers: 2)
    for index in indices {
      let sample = try source.load(index)
      let outline = try #require(try await outlines.next())
      #expect(outline.ids == sample.ids && outline.turns == sample.turns)
      if source.separates(index), index % 3 != 2 {
        #expect(sample.turns.count == 2)
        #expect(sample.ids.count < (try whole.load(index).ids.count))
      } else {
        #expect(sample.turns.isEmpty)
        #expect(try sample.ids == whole.load(index).ids)
      }
      kinds.insert(sample.turns.isEmpty)
    }
    #expect(kinds.count == 2)
    let report = try await DataCheck(source).run()
    #expect(report.flaws.isEmpty)
    let other = try await DataCheck(whole).run()
    #expect(try report.digest() == other.digest())
    withExtendedLifetime(folders) {}
  }
}

extension Array {
  fileprivate func suffix(while holds: (Element) -> Bool) -> ArraySlice<Element> {
    self[(lastIndex { !holds($0) }.map { $0 + 1 } ?? 0)...]
  }
}
