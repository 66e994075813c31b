import Foundation
import Support
import Testing

@testable import Text

/// Files that are not what they should be: errors, never crashes.
@Suite struct HostileFilesTests {
  static let models = ["prefix", "no_prefix", "no_bytes"]

  func model(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(filePath: Fixtures.path("text/\(name).model"))))
  }

  @Test("survives damaged models", arguments: models)
  func damagedModels(_ name: String) throws {
    let sound = try model(name)
    var draw = SeededGenerator(state: 99)
    var opened = 0
    for _ in 0..<400 {
      var damaged = sound
      for _ in 0..<Int.random(in: 1...4, using: &draw) {
        // Most of a model is pieces; the interesting parts are at its end.
        let near = Bool.random(using: &draw) ? damaged.count : min(damaged.count, 2_500)
        let at = damaged.count - 1 - Int.random(in: 0..<near, using: &draw)
        switch Int.random(in: 0..<6, using: &draw) {
        case 0: damaged[at] = .random(in: 0...255, using: &draw)
        case 1: damaged[at] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &draw)
        case 2: damaged[at] = [0, 1, 2, 0x7F, 0x80, 0xFF].randomElement(using: &draw) ?? 0
        case 3: damaged.removeLast(damaged.count - at)
        case 4: damaged.remove(at: at)
        default: damaged.insert(contentsOf: damaged[at...].prefix(30), at: at)
        }
        if damaged.isEmpty { damaged = [0] }
      }
      guard
        let model = try? SentencePieceModel(
          contents: damaged, path: "x", addsDummyPrefix: Bool.random(using: &draw))
      else { continue }
      opened += 1
      for text in ["", "Hello, 世界 🙂", "ＡＢ　ﬃ <img>", String(repeating: "a ", count: 50)] {
        _ = try? model.encode(text.utf8)
      }
    }
    #expect(opened > 0)
  }

  @Test func survivesRandomBytes() throws {
    var draw = SeededGenerator(state: 3)
    for count in [0, 1, 2, 10, 100, 1_000] {
      for _ in 0..<50 {
        let noise = (0..<count).map { _ in UInt8.random(in: 0...255, using: &draw) }
        #expect(throws: TextError.self) {
          try SentencePieceModel(contents: noise, path: "x", addsDummyPrefix: true)
        }
      }
    }
  }

  /// Protobuf bytes of a field that holds bytes.
  func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] {
    var size = bytes.count
    var encoded: [UInt8] = [number << 3 | 2]
    while size >= 0x80 {
      encoded.append(UInt8(size & 0x7F | 0x80))
      size >>= 7
    }
    return encoded + [UInt8(size)] + bytes
  }

  func piece(_ text: String, type: UInt8) -> [UInt8] {
    field(1, field(1, Array(text.utf8)) + [0x18, type])
  }

  /// What is appended to a sound model, and what the error says.
  @Test func refusesWhatTheLibraryWouldTrust() throws {
    let nested = (1...65).flatMap { piece(String(repeating: "~", count: $0), type: 4) }
    var cyclic = [UInt8](repeating: 0, count: 1024)
    // The root's children start at 1; the one labelled "a", at 1 ^ 0x61, is its own child by "a".
    cyclic.replaceSubrange(0..<4, with: [0, 4, 0, 0])
    cyclic.replaceSubrange(4 * 0x60..<4 * 0x61, with: [0x61, 0x84, 1, 0])
    let cases: [([UInt8], String)] = [
      (piece(String(repeating: "x", count: 1_025), type: 1), "longer than"),
      (piece("a\u{0}b", type: 4), "zero byte"),
      (piece("a\u{0}c", type: 7), "type"),
      (field(1, field(1, [0xFF, 0xFE])), "UTF-8"),
      (field(1, [0x15, 0, 0, 0xC0, 0x7F] + field(1, [0x41])), "not finite"),
      (piece("a", type: 1), "already defined"),
      (piece("second", type: 2), "already defined"),
      (nested, "prefixes of one another"),
      (field(2, [0x18, 1]), "byte-pair"),
      (field(2, [0x18, 9]), "byte-pair"),
      (field(3, [0x28, 0]), "whitespace"),
      (field(3, field(2, [0xFF, 0xFF, 0xFF, 0x7F, 1])), "normalization rules"),
      (field(3, field(2, [4, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0])), "normalization rules"),
      (field(3, field(2, [0, 4, 0, 0] + cyclic + [0])), "normalization rules"),
      (field(5, field(2, [1])), "denormalizes"),
      (field(4, [UInt8](repeating: 0, count: 1 << 20 + 1)), "1 MiB"),
      ([0x0B], "not a SentencePiece"),
      ([0x08, 0x01], "wire type"),
    ]
    let sound = try model("prefix")
    for (addition, complaint) in cases {
      #expect {
        try SentencePieceModel(contents: sound + addition, path: "m", addsDummyPrefix: true)
      } throws: { error in
        guard case TextError.invalidModel("m", let reason) = error else { return false }
        #expect(reason.contains(complaint), "\(reason)")
        return true
      }
    }
  }

  func open(_ files: [String: String]) throws -> Tokenizer {
    let model = Data(try model("prefix"))
    return try TemporaryFolder.with(
      files.mapValues { Data($0.utf8) }.merging(["tokenizer.model": model]) { $1 },
      Tokenizer.init(folder:))
  }

  @Test(
    "names what is wrong in a JSON file",
    arguments: [
      ["tokenizer_config.json": "{"], ["tokenizer_config.json": "[]"],
      ["tokenizer_config.json": #"{"legacy": "yes"}"#],
      ["tokenizer_config.json": #"{"bos_token": 5}"#],
      ["tokenizer_config.json": #"{"bos_token": {"lstrip": true}}"#],
      ["tokenizer_config.json": #"{"bos_token": null}"#],
      ["tokenizer_config.json": #"{"legacy": false, "unk_token": null}"#],
      ["tokenizer_config.json": #"{"additional_special_tokens": "<img>"}"#],
      ["tokenizer_config.json": #"{"added_tokens_decoder": {"x": {"content": "a"}}}"#],
      ["tokenizer_config.json": #"{"added_tokens_decoder": {"-1": {"content": "a"}}}"#],
      ["tokenizer_config.json": #"{"added_tokens_decoder": {"99999999999": {"content": "a"}}}"#],
      ["tokenizer_config.json": #"{"added_tokens_decoder": {"5": {"content": ""}}}"#],
      ["tokenizer_config.json": #"{"added_tokens_decoder": {"5": {}}}"#],
      ["tokenizer_config.json": String(repeating: "[", count: 100_000)],
      ["added_tokens.json": #"{"a": 600, "b": 600}"#], ["added_tokens.json": #"{"a": 1.5}"#],
      ["added_tokens.json": #"{"a": "1"}"#], ["special_tokens_map.json": "null"],
      ["special_tokens_map.json": #"{"additional_special_tokens": [[]]}"#],
    ] as [[String: String]])
  func brokenJSON(_ files: [String: String]) {
    #expect {
      try open(files)
    } throws: { error in
      guard case TextError.invalidConfiguration(let path, let reason) = error else { return false }
      return !reason.isEmpty && (files.keys.contains { path.hasSuffix("/\($0)") })
    }
  }

  @Test func survivesDamagedJSON() throws {
    let names = ["tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"]
    let sound = try names.map {
      Array(try Data(contentsOf: URL(filePath: "\(goldenFolder)/\($0)")))
    }
    var draw = SeededGenerator(state: 5)
    var opened = 0
    for round in 0..<200 {
      var files = ["tokenizer.model": Data(try model("prefix"))]
      for (name, contents) in zip(names, sound) where round % 2 == 0 || name != names[0] {
        var damaged = contents
        for _ in 0..<Int.random(in: 0...2, using: &draw) {
          let at = Int.random(in: 0..<damaged.count, using: &draw)
          switch Int.random(in: 0..<3, using: &draw) {
          case 0: damaged[at] = .random(in: 0...255, using: &draw)
          case 1: damaged[at] = Array(#"{}[]",:019-e\u"#.utf8).randomElement(using: &draw) ?? 0
          default: damaged.remove(at: at)
          }
        }
        files[name] = Data(damaged)
      }
      do {
        let tokenizer = try TemporaryFolder.with(files, Tokenizer.init(folder:))
        opened += 1
        let ids = try tokenizer.encode("a <img>b</img> <|im_end|>\n")
        _ = tokenizer.decode(ids)
      } catch is TextError {}
    }
    #expect(opened > 0)
  }

  @Test func refusesFoldersThatAreNoCheckpoints() throws {
    #expect {
      try TemporaryFolder.with([:], Tokenizer.init(folder:))
    } throws: {
      guard case TextError.unreadableFile(let path, _) = $0 else { return false }
      return path.hasSuffix("tokenizer.model")
    }
    #expect {
      try open(["tokenizer_config.json": #"{"tokenizer_class": "Qwen2Tokenizer"}"#])
    } throws: {
      guard case TextError.unsupportedTokenizer(_, "Qwen2Tokenizer") = $0 else { return false }
      return "\($0)".contains("Qwen2Tokenizer")
    }
    #expect {
      try open(["tokenizer_config.json": String(repeating: " ", count: 9 << 20)])
    } throws: {
      guard case TextError.oversizedFile(_, 9_437_184, _) = $0 else { return false }
      return true
    }
    #expect(throws: TextError.unreadableFile(path: "/dev", reason: "it is not a regular file")) {
      try BoundedFile.read("/dev", limit: 10)
    }
    #expect(try BoundedFile.read("/nowhere/at/all", limit: 10) == nil)
  }

  /// A control piece of one character is found by the encoder, which then loses count.
  @Test func reportsTextsThatCannotBeEncoded() throws {
    let damaged = try model("prefix") + piece("~", type: 3)
    let tokenizer = try TemporaryFolder.with(
      ["tokenizer.model": Data(damaged)], Tokenizer.init(folder:))
    #expect {
      try tokenizer.encode("a~b")
    } throws: {
      guard case TextError.encodingFailed(let reason) = $0 else { return false }
      return !reason.isEmpty
    }
    #expect(try !tokenizer.encode("ab").isEmpty)
  }
}
