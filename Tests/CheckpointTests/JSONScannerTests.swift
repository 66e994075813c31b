import Testing

@testable import Checkpoint

@Suite struct JSONScannerTests {
  @Test(arguments: [
    (#"{"a": [1, -2, 3.5, 1e3], "b": {"c": null}}"#, #"{"a":[1,-2,3.5,1000.0],"b":{"c":null}}"#),
    (" [ true , false ] \n", "[true,false]"),
    ("\"\"", "\"\""),
    ("[]", "[]"),
    ("{}", "{}"),
    (
      #""tab \t, quote \", slash \/, é é 😀 \ud83d\ude00""#, #""tab \t, quote \", slash /, é é 😀 😀""#
    ),
    ("-0", "0"),
    ("9223372036854775807", "9223372036854775807"),
    ("9223372036854775808", "9.223372036854776e+18"),
    ("-Infinity", "-Infinity"),
    ("1E-2", "0.01"),
  ])
  func `reads what RFC 8259 and Python's writer allow`(text: String, expected: String) throws {
    #expect(try JSONValue.parse(Array(text.utf8), file: "f").compactText == expected)
  }

  @Test(arguments: [
    "", " ", "{", "[", "\"", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "[1,]", "[1 2]", "[,1]",
    "1 2", "01", "-01", "-", "1.", ".5", "+1", "1e", "1e+", "tru", "nul", "'a'", "{\"a\":1}}",
    "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800x\"", "\"\\ud800\\n\"",
    "\"\\ud800\\ud800\"", "\"\\udc00\"", "\"a\nb\"", "\"\u{1}\"", "\"\\", "\"\\u", "/* */ 1",
    "\u{FEFF}1",
  ])
  func `refuses what is not JSON`(text: String) {
    #expect {
      try JSONValue.parse(Array(text.utf8), file: "f")
    } throws: { error in
      guard case CheckpointError.invalidJSON(file: "f", _, _)? = error as? CheckpointError
      else { return false }
      return true
    }
  }

  @Test(
    arguments: [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22],
      [0x22, 0x5C, 0x6E, 0xFF, 0x22], [0x22, 0xE2, 0x82, 0x22], [0xFF], [0x00],
    ] as [[UInt8]])
  func `refuses bytes that are not UTF-8`(bytes: [UInt8]) {
    #expect(throws: CheckpointError.self) { try JSONValue.parse(bytes, file: "f") }
  }

  @Test func `refuses a name that comes twice, however it is written`() {
    let expected = CheckpointError.duplicateName(file: "f", name: "ab")
    for text in [#"{"ab":1,"c":2,"ab":1}"#, #"{"ab":1,"\u0061b":1}"#, #"[{"ab":{},"ab":[]}]"#] {
      #expect(throws: expected) { try JSONValue.parse(Array(text.utf8), file: "f") }
    }
  }

  @Test(arguments: ["[", "{\"a\":"])
  func `refuses nesting beyond its depth, in values it keeps or skips`(opening: String) throws {
    let bomb = Array(String(repeating: opening, count: 1_000_000).utf8)
    #expect(throws: CheckpointError.self) { try JSONValue.parse(bomb, file: "f") }
    bomb.withUnsafeBytes { bytes in
      var scanner = JSONScanner(bytes, file: "f")
      #expect(throws: CheckpointError.self) { try scanner.skipValue() }
    }
    let depth = JSONScanner.maximumDepth
    func nested(_ count: Int) -> [UInt8] {
      Array((String(repeating: "[", count: count) + String(repeating: "]", count: count)).utf8)
    }
    _ = try JSONValue.parse(nested(depth), file: "f")
    #expect(throws: CheckpointError.self) { try JSONValue.parse(nested(depth + 1), file: "f") }
  }

  @Test func `refuses an object of too many members`() throws {
    func object(_ count: Int) -> [UInt8] {
      Array("{\((0..<count).map { "\"\($0)\":0" }.joined(separator: ","))}".utf8)
    }
    _ = try JSONValue.parse(object(JSONScanner.maximumMembers), file: "f")
    #expect(throws: CheckpointError.self) {
      try JSONValue.parse(object(JSONScanner.maximumMembers + 1), file: "f")
    }
  }

  @Test func `siblings do not count as depth`() throws {
    let text = "[" + Array(repeating: "[{}]", count: 1000).joined(separator: ",") + "]"
    _ = try JSONValue.parse(Array(text.utf8), file: "f")
  }

  @Test func `text written is text read`() throws {
    let value = JSONValue.object([
      ("quote \" slash \\ \n\r\t\u{1}", .string("é😀")),
      ("list", .array([.integer(1), .number(0.5)])),
      ("empty", .object([])), ("none", .array([])), ("null", .null), ("yes", .boolean(true)),
    ])
    for text in [value.text, value.compactText] {
      #expect(try JSONValue.parse(Array(text.utf8), file: "f").compactText == value.compactText)
    }
  }

  @Test func `numbers of absurd length are refused`() {
    let text = String(repeating: "9", count: 100_000)
    #expect(throws: CheckpointError.self) { try JSONValue.parse(Array(text.utf8), file: "f") }
  }
}
