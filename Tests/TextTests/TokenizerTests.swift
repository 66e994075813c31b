import Foundation
import Support
import Testing

@testable import Text

@Suite struct TokenizerTests {
  static let cases = Result { try TextCases.load() }

  static var variants: [TextCases.Variant] { (try? cases.get().variants) ?? [] }

  @Test func casesWereRead() throws {
    #expect(try Self.cases.get().variants.count == 12)
  }

  @Test("encodes as the reference", arguments: variants)
  func encodes(_ variant: TextCases.Variant) throws {
    let tokenizer = try variant.tokenizer()
    for (text, ids) in zip(try Self.cases.get().strings, variant.ids) {
      #expect(try tokenizer.encode(text) == ids, "\(text.debugDescription)")
    }
  }

  @Test("encodes long texts as the reference", arguments: variants)
  func encodesLong(_ variant: TextCases.Variant) throws {
    let tokenizer = try variant.tokenizer()
    for (long, digest) in zip(try Self.cases.get().long, variant.long) {
      let ids = try tokenizer.encode(long.text)
      #expect(fingerprint(ids) == digest, "\(long.text.prefix(20)), \(ids.count) ids")
    }
  }

  @Test("decodes what it encoded as the reference", arguments: variants)
  func decodes(_ variant: TextCases.Variant) throws {
    let tokenizer = try variant.tokenizer()
    for (ids, texts) in zip(variant.ids, variant.texts) {
      #expect(bytes(tokenizer.decode(ids)) == bytes(texts[0]), "\(ids)")
      #expect(
        bytes(tokenizer.decode(ids, skippingSpecialTokens: false)) == bytes(texts[1]), "\(ids)")
    }
  }

  @Test("decodes any ids as the reference", arguments: variants)
  func decodesSequences(_ variant: TextCases.Variant) throws {
    let tokenizer = try variant.tokenizer()
    for sequence in variant.sequences {
      #expect(
        bytes(tokenizer.decode(sequence.ids)) == bytes(sequence.skipped), "\(sequence.ids)")
      #expect(
        bytes(tokenizer.decode(sequence.ids, skippingSpecialTokens: false))
          == bytes(sequence.whole), "\(sequence.ids)")
    }
  }

  @Test("knows the vocabulary as the reference", arguments: variants)
  func vocabulary(_ variant: TextCases.Variant) throws {
    let tokenizer = try variant.tokenizer()
    #expect(tokenizer.vocabularySize == variant.vocabulary)
    #expect((0..<variant.vocabulary).filter(tokenizer.isSpecial) == variant.special)
    #expect(!tokenizer.isSpecial(-1) && !tokenizer.isSpecial(1 << 40))
  }

  @Test("streams what decoding at once gives", arguments: variants)
  func streams(_ variant: TextCases.Variant) throws {
    let tokenizer = try variant.tokenizer()
    for ids in variant.ids + variant.sequences.map(\.ids) {
      var stream = StreamingDetokenizer(tokenizer: tokenizer)
      var text: [UInt8] = []
      for id in ids { text += stream.append(id).utf8 }
      text += stream.finish().utf8
      #expect(text == bytes(tokenizer.decode(ids)), "\(ids)")
    }
  }

  @Test func encodesTheGoldenPrompt() throws {
    struct Golden: Decodable {
      var query: String
      var inputIDs: [Int]
      var greedy: [Int]
      var greedyText: String

      enum CodingKeys: String, CodingKey {
        case query, greedy
        case inputIDs = "input_ids"
        case greedyText = "greedy_text"
      }
    }
    let data = try Data(
      contentsOf: URL(filePath: Fixtures.path("golden/v12-tiny/expected.json")))
    let golden = try JSONDecoder().decode(Golden.self, from: data)
    let tokenizer = try Tokenizer(folder: goldenFolder)

    let turns = try ImagePlaceholders.expand(
      [ChatTurn(role: .user, text: "<image>\nDescribe the picture in one sentence.")], rows: [4])
    let prompt = try ChatTemplate.hermes2.render(turns: turns)
    #expect(
      prompt
        == golden.query.replacing(
          "<IMG_CONTEXT>*4", with: String(repeating: "<IMG_CONTEXT>", count: 4)))
    let ids = try tokenizer.encode(prompt)
    #expect(ids == golden.inputIDs)
    let context = try #require(tokenizer.id(of: "<IMG_CONTEXT>"))
    try ImagePlaceholders.check(ids, contextID: context, rows: [4])
    #expect(
      tokenizer.decode(golden.greedy, skippingSpecialTokens: false) == golden.greedyText)
    #expect(ChatTemplate.hermes2.stopIDs(tokenizer) == [2, 6, 7])
  }

  @Test func encodesOnManyThreadsAtOnce() async throws {
    let tokenizer = try Tokenizer(folder: goldenFolder)
    let text = "Describe the picture 🙂 <img><IMG_CONTEXT></img> in one sentence."
    let expected = try tokenizer.encode(text)
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for _ in 0..<8 {
        group.addTask {
          try (0..<50).allSatisfy { _ in try tokenizer.encode(text) == expected }
        }
      }
      for try await same in group { #expect(same) }
    }
  }

  @Test func tellsTokensApartByTheirBytes() throws {
    let tokenizer = try Tokenizer(folder: goldenFolder)
    #expect(tokenizer.id(of: "<IMG_CONTEXT>") == 505)
    #expect(tokenizer.id(of: "<img_context>") == nil)
    #expect(tokenizer.id(of: "") == nil)
    #expect(tokenizer.token(of: 505) == "<IMG_CONTEXT>")
    #expect(tokenizer.token(of: 512) == nil)
  }

  @Test func skipsIdsOfNoToken() throws {
    let tokenizer = try Tokenizer(folder: goldenFolder)
    let ids = try tokenizer.encode("Hello")
    #expect(tokenizer.decode([-1, 512, .max] + ids + [.min]) == tokenizer.decode(ids))
  }

  @Test func refusesTextsBeyondTheLimit() throws {
    let tokenizer = try Tokenizer(folder: goldenFolder)
    let limit = Tokenizer.maximumTextBytes
    #expect(throws: TextError.oversizedText(bytes: limit + 1, limit: limit)) {
      try tokenizer.encode(String(repeating: "a", count: limit + 1))
    }
  }
}

/// 64-bit FNV-1a of the ids' decimal text.
private func fingerprint(_ ids: [Int]) -> String {
  var hash: UInt64 = 0xCBF2_9CE4_8422_2325
  for byte in ids.map(String.init).joined(separator: " ").utf8 {
    hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
  }
  return String(hash, radix: 16)
}
