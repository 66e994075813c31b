import Foundation
import Support
import Testing

@testable import Text

/// The cases of Tests/Fixtures/text/cases.json.
struct TextCases: Decodable {
  struct Variant: Decodable, CustomTestStringConvertible {
    var name: String
    var model: String
    var files: [String: String]
    var vocabulary: Int
    var special: [Int]
    var ids: [[Int]]
    var texts: [[String]]
    var long: [String]
    var sequences: [Sequence]

    var testDescription: String { name }

    func tokenizer() throws -> Tokenizer {
      let model = try Data(contentsOf: URL(filePath: Fixtures.path("text/\(model).model")))
      return try TemporaryFolder.with(
        files.mapValues { Data($0.utf8) }.merging(["tokenizer.model": model]) { $1 },
        Tokenizer.init(folder:))
    }
  }

  struct Sequence: Decodable {
    var ids: [Int]
    var skipped: String
    var whole: String

    init(from decoder: any Decoder) throws {
      var fields = try decoder.unkeyedContainer()
      ids = try fields.decode([Int].self)
      skipped = try fields.decode(String.self)
      whole = try fields.decode(String.self)
    }
  }

  struct Long: Decodable {
    var text: String

    init(from decoder: any Decoder) throws {
      var fields = try decoder.unkeyedContainer()
      let text = try fields.decode(String.self)
      self.text = String(repeating: text, count: try fields.decode(Int.self))
    }
  }

  var strings: [String]
  var long: [Long]
  var variants: [Variant]

  static func load() throws -> TextCases {
    let data = try Data(contentsOf: URL(filePath: Fixtures.path("text/cases.json")))
    return try JSONDecoder().decode(TextCases.self, from: data)
  }
}

enum TemporaryFolder {
  /// Calls `body` with a folder that holds these files, and removes it afterwards.
  static func with<Result>(
    _ files: [String: Data], _ body: (String) throws -> Result
  ) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    for (name, contents) in files { try contents.write(to: folder.appending(path: name)) }
    return try body(folder.path)
  }
}

/// SplitMix64 (Steele et al., OOPSLA 2014).
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed >> 31
  }
}

let goldenFolder = Fixtures.path("golden/v12-tiny/checkpoint")

/// Strings compared by their bytes: Swift's == takes canonically equivalent ones for equal.
func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
