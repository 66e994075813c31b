import Checkpoint
import Support
import Testing

@testable import TrainingData

@Suite struct SampleTests {
  private func turns(_ line: String) throws -> [String] {
    try SampleEncoder.turns(SampleRecord(Array(line.utf8))).map(\.text)
  }

  @Test func `a picture without placeholder gets one before the first words`() throws {
    #expect(try turns(line("What?")) == ["<image>\nWhat?", "A circle."])
    #expect(try turns(line("What? <image>")) == ["What? <image>", "A circle."])
  }

  @Test func `text alone loses its placeholders`() throws {
    #expect(
      try turns(line("<image>\\nWhat <query>?", "A <image>.", image: nil)) == ["\nWhat ?", "A ."])
    #expect(try turns(line("a<image>", image: "null")) == ["a", "A circle."])
    #expect(try turns(line("a<image>", image: "[]")) == ["a", "A circle."])
    #expect(try turns(line("a<image>", image: #""""#)) == ["a", "A circle."])
  }

  @Test func `a first turn of the model is dropped`() throws {
    let line =
      #"{"conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "a"}, "#
      + #"{"from": "gpt", "value": "b"}]}"#
    #expect(try turns(line) == ["a", "b"])
  }

  static let human = #"{"from": "human", "value": "<image>"}"#
  static let answer = #"{"from": "gpt", "value": "b"}"#

  @Test(
    arguments: [
      ("", .emptyLine),
      ("  \t", .emptyLine),
      ("{", .invalidJSON),
      ("{} x", .invalidJSON),
      (#"{"id": 1, "id": 2}"#, .invalidJSON),
      (String(repeating: "[", count: 100_000), .invalidJSON),
      ("[]", .invalidField),
      ("{}", .invalidField),
      (#"{"conversations": 1}"#, .invalidField),
      (#"{"conversations": [1]}"#, .invalidField),
      (#"{"conversations": [{"from": "human"}]}"#, .invalidField),
      (#"{"conversations": [{"from": 1, "value": "a"}]}"#, .invalidField),
      (#"{"image": 1, "conversations": []}"#, .invalidField),
      (#"{"image": ["a", 1], "conversations": []}"#, .invalidField),
      (#"{"video": "a.mp4", "conversations": []}"#, .invalidField),
      (#"{"conversations": []}"#, .noAnswer),
      (#"{"conversations": [\#(answer)]}"#, .noAnswer),
      (#"{"conversations": [\#(human)]}"#, .noAnswer),
      (#"{"conversations": [\#(human), \#(answer), \#(human)]}"#, .noAnswer),
      (line("a", "", image: nil), .noAnswer),
      (line("a", " \\n", image: nil), .noAnswer),
      (line("<image>", image: nil), .emptyTurn),
      (#"{"conversations": [\#(human), \#(human)]}"#, .wrongRoles),
      (#"{"conversations": [\#(answer), \#(answer)]}"#, .wrongRoles),
      (#"{"conversations": [{"from": "system", "value": "a"}, \#(answer)]}"#, .wrongRoles),
      (line("<image><image>"), .imageCountMismatch),
      (line("a", "<image>"), .imageCountMismatch),
      (line("<image>", image: #"["image.jpg", "image.jpg"]"#), .imageCountMismatch),
      (line("a", image: #"["image.jpg", "image.jpg"]"#), .imageCountMismatch),
      (line("a<|im_end|>", image: nil), .reservedToken),
      (line("a", "<|im_start|>", image: nil), .reservedToken),
      (line("<img>"), .reservedToken),
      (line(image: #""none.jpg""#), .missingPicture),
      (line(image: #""image.jpg/a""#), .missingPicture),
      (line(image: #"".""#), .unreadablePicture),
      (line(image: #""a\u0000b""#), .unreadablePicture),
      (line(image: #""a.jsonl""#), .notAPicture),
      (line(image: #""torn.jpg""#), .tornPicture),
      (line(image: #""empty.jpg""#), .tornPicture),
      (line(image: #""one.png""#), .tinyPicture),
    ] as [(String, SampleFlaw.Kind)])
  func `a flaw is named`(_ text: String, _ kind: SampleFlaw.Kind) throws {
    let folder = try DataFolder()
    let golden = try DataFolder.bytes(Fixtures.path("golden/v12-tiny/image.jpg"))
    try folder.write("image.jpg", golden)
    try folder.write("torn.jpg", Array(golden.prefix(golden.count * 2 / 3)))
    try folder.write("empty.jpg", [])
    try folder.copy("images/one-pixel.png", to: "one.png")
    let flaw = try #require(try folder.flaw(text))
    #expect(flaw.kind == kind, "\(flaw)")
    #expect(flaw.source == .init(dataset: "some", file: "\(folder.path)/a.jsonl", line: 1))
    #expect(flaw.description.hasPrefix("\(folder.path)/a.jsonl:1: \(kind.rawValue): "))
  }

  @Test func `several pictures take their places in order`() throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    try folder.copy("golden/v12-tiny/second.jpg", to: "second.jpg")
    let both = line("<image> or <image>?", image: #"["second.jpg", "image.jpg"]"#)
    let source = try folder.source([
      both, line(), line(image: #"["second.jpg"]"#), line("a", image: nil),
    ])
    let pixels = try #require(source.load(0).pixels)
    #expect(pixels.shape == [2, 3, 56, 56])
    let first = try #require(source.load(1).pixels)
    let second = try #require(source.load(2).pixels)
    #expect(pixels[0].hasSameBits(as: second[0]))
    #expect(pixels[1].hasSameBits(as: first[0]))
    #expect(try source.load(3).pixels == nil)
  }

  // MARK: The limit

  @Test func `what is over the limit is cut on the right, but no image`() throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    // The text is long, the image ends at token 32 (see the golden case).
    let long = line("<image>\\nWhat?", String(repeating: "a circle ", count: 40) + "end.")
    let whole = try folder.source([long]).load(0)
    let image = try #require(whole.ids.lastIndex(of: 504)) + 1
    let answer = try #require(whole.labels.firstIndex { $0 != -100 })
    #expect(image == 32)
    for limit in [image - 5, image - 1] {
      let flaw = try folder.flaw(long, options: .init(maxSequenceLength: limit))
      #expect(flaw?.kind == .cutImage, "\(limit)")
    }
    for limit in [image, answer] {
      let flaw = try folder.flaw(long, options: .init(maxSequenceLength: limit))
      #expect(flaw?.kind == .nothingLearnt, "\(limit)")
    }
    for limit in [answer + 1, whole.ids.count - 1, whole.ids.count] {
      let sample = try folder.source([long], options: .init(maxSequenceLength: limit)).load(0)
      #expect(sample.ids == Array(whole.ids.prefix(limit)))
      #expect(sample.labels == Array(whole.labels.prefix(limit)))
    }
  }

  @Test func `images over the limit are not written out first`() throws {
    let folder = try DataFolder()
    let encoder = try folder.source([line("a", image: nil)]).encoder
    let turns = try SampleEncoder.turns(SampleRecord(Array(line().utf8)))
    // Tens of terabytes of text.
    #expect {
      try encoder.encode(turns, tiles: [1 << 40])
    } throws: {
      ($0 as? UnplacedFlaw)?.kind == .cutImage
    }
  }

  @Test(
    arguments: [
      (nil, 1000), (.linear(factor: 2.5), 2500), (.linear(factor: 0.5), 1000),
      (.dynamic(factor: 2), 1 << 20),
    ] as [(RopeScaling?, Int)])
  func `the limit is at most the model's context`(_ scaling: RopeScaling?, _ expected: Int) throws {
    let model = try ModelConfiguration.load(folder: DataFolder.model)
    var language = model.language
    language.maxPositions = 1000
    language.ropeScaling = scaling
    let configuration = try ModelConfiguration(vision: model.vision, language: language)
    let encoder = try SampleEncoder(
      modelFolder: DataFolder.model, configuration: configuration, maxSequenceLength: 1 << 20)
    #expect(encoder.maxSequenceLength == expected)
  }

  @Test(arguments: [
    #"{"conversations": [{"from": "@", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
    #"{"@": 1, "@": 2}"#,
    line(image: #""@""#),
    line(image: #""image.jpg/@""#),
  ]) func `messages show little of what is long, and no control characters`(
    _ text: String
  ) throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    let long = #"\u001b[2J\u202e"# + String(repeating: "x", count: 100_000)
    let flaw = try #require(try folder.flaw(text.replacing("@", with: long)))
    #expect(flaw.description.utf8.count < 1000)
    #expect(!flaw.description.unicodeScalars.contains { $0 == "\u{1B}" || $0 == "\u{202E}" })
  }

  @Test func `what is shown of a text is its beginning, of a path its end`() {
    #expect(Clip.text("a\u{1B}b\n😀") == #"a\u{1B}b\u{A}😀"#)
    #expect(Clip.text(String(repeating: "é", count: 81)) == String(repeating: "é", count: 80) + "…")
    #expect(Clip.path("/a/b.jpg") == "/a/b.jpg")
    let long = String(repeating: "d/", count: 200) + "b.jpg"
    #expect(Clip.path(long).hasPrefix("…") && Clip.path(long).hasSuffix("/d/b.jpg"))
    #expect(Clip.path(long).count == 161)
  }

  @Test func `more samples than memory is made for are refused`() throws {
    let folder = try DataFolder()
    let lines = SampleSource.maximumSamples / 10_000 + 1
    #expect {
      try folder.source(Array(repeating: "{}", count: lines), keys: #", "repeat_time": 10000"#)
    } throws: { error in
      guard case TrainingDataError.tooManySamples(_, "some", lines, 10_000, _) = error else {
        return false
      }
      return "\(error)".contains("lower repeat_time")
    }
  }

  @Test func `repetitions are samples of their own, of the same line`() throws {
    let folder = try DataFolder()
    let lines = ["a", "b", "c"].map { line($0, image: nil) }
    let source = try folder.source(lines, keys: #", "repeat_time": 2"#)
    #expect(source.count == 6)
    #expect((0..<6).map(source.line(ofSample:)) == [0, 1, 2, 0, 1, 2])
    #expect(try source.load(4).ids == source.load(1).ids)
    #expect(try source.load(4).key == 4)
    #expect(source.source(ofSample: 4).line == 2)

    let half = try folder.source(lines, keys: #", "repeat_time": 0.7"#)
    #expect(half.count == 2)
  }

  @Test func `data sets follow one another, empty ones too`() throws {
    let folder = try DataFolder()
    try folder.write("a.jsonl", line("a", image: nil) + "\n" + line("b", image: nil))
    try folder.write("empty.jsonl", "")
    try folder.write("b.jsonl", line("c", image: nil))
    let meta = try folder.write(
      "meta.json",
      #"{"e": {"root": "", "annotation": "empty.jsonl"}, "a": {"annotation": "a.jsonl"}, "#
        + #""f": {"root": "", "annotation": "empty.jsonl"}, "b": {"annotation": "b.jsonl"}}"#)
    let source = try SampleSource(metaPath: meta, modelFolder: DataFolder.model)
    #expect(source.count == 3)
    #expect((0..<3).map { source.source(ofSample: $0).dataset } == ["a", "a", "b"])
    #expect((0..<3).map { source.source(ofSample: $0).line } == [1, 2, 1])
  }
}
