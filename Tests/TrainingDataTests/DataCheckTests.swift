import Support
import Testing
import Training

@testable import TrainingData

@Suite struct DataCheckTests {
  /// Lines without fault, of all kinds.
  private func good(_ number: Int) -> String {
    switch number % 5 {
    case 0: line("<image>\\nWhat is number \(number)?", "It is a circle.")
    case 1: line("What is number \(number)?", "It is nothing.", image: nil)
    case 2: line("<image> and <image>?", "Two.", image: #"["image.jpg", "second.jpg"]"#)
    case 3:
      #"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, "#
        + #"{"from": "human", "value": "c"}, {"from": "gpt", "value": "\#(number)"}]}"#
    default: line("No placeholder", "é 😀", image: #""second.jpg""#)
    }
  }

  /// The head of a PNG that would be 40,000 pixels wide and high.
  private static let huge: [UInt8] = [
    0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0x00, 0x00, 0x00, 0x0D, 0x49, 0x48,
    0x44, 0x52, 0x00, 0x00, 0x9C, 0x40, 0x00, 0x00, 0x9C, 0x40, 0x08, 0x02, 0x00, 0x00,
    0x00, 0xDE, 0x6E, 0x99, 0x52, 0x00, 0x00, 0x00, 0x0B, 0x49, 0x44, 0x41, 0x54, 0x78,
    0x9C, 0x63, 0x60, 0x80, 0x00, 0x00, 0x00, 0x08, 0x00, 0x01, 0xB7, 0x58, 0x73, 0x95,
  ]

  /// Twenty faults, no two alike.
  private static let faults: [(bytes: [UInt8], kind: SampleFlaw.Kind)] = {
    let answer = #"{"from": "gpt", "value": "b"}"#
    let human = #"{"from": "human", "value": "a"}"#
    let texts: [(String, SampleFlaw.Kind)] = [
      (line(image: #""missing.jpg""#), .missingPicture),
      (line(image: #""torn.jpg""#), .tornPicture),
      (line(image: #""torn.png""#), .tornPicture),
      (line(image: #""one.png""#), .tinyPicture),
      (line(image: #""huge.png""#), .hugePicture),
      (line(image: #""text.jpg""#), .notAPicture),
      (#"{"conversations": [\#(human), \#(human), \#(answer)]}"#, .wrongRoles),
      (#"{"conversations": [{"from": "user", "value": "a"}, \#(answer)]}"#, .wrongRoles),
      (#"{"conversations": [\#(human)]}"#, .noAnswer),
      (line("a", "", image: nil), .noAnswer),
      (#"{"conversations": []}"#, .noAnswer),
      (line("a", String(repeating: "word ", count: 600) + "end", image: nil), .overLong),
      (line(String(repeating: "word ", count: 600) + "end", image: nil), .nothingLearnt),
      (line(String(repeating: "word ", count: 600) + "<image>"), .cutImage),
      (line("<image><image>"), .imageCountMismatch),
      (line("<image>", image: #"["image.jpg", "second.jpg"]"#), .imageCountMismatch),
      ("", .emptyLine),
      (#"{"id": 3, "conversations": [{"from": "hum"#, .invalidJSON),
      (line("a<|im_end|>b", image: nil), .reservedToken),
    ]
    return texts.map { (Array($0.utf8), $1) }
      + [
        (
          Array(line("caf", image: nil).utf8).replacing("caf".utf8, with: [0xFF, 0xFE]),
          .invalidUTF8
        )
      ]
  }()

  private func plant(_ folder: DataFolder) throws -> (SampleSource, [Int: SampleFlaw.Kind]) {
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    try folder.copy("golden/v12-tiny/second.jpg", to: "second.jpg")
    let jpeg = try DataFolder.bytes(Fixtures.path("golden/v12-tiny/image.jpg"))
    try folder.write("torn.jpg", Array(jpeg.prefix(jpeg.count / 2)))
    let png = try DataFolder.bytes(Fixtures.path("images/rgb-8.png"))
    try folder.write("torn.png", Array(png.prefix(png.count / 2)))
    try folder.copy("images/one-pixel.png", to: "one.png")
    try folder.write("huge.png", DataCheckTests.huge)
    try folder.write("text.jpg", "This is no picture.")

    var places = Array(0..<300)
    var random = SeededRandom(20)
    places.shuffle(using: &random)
    var planted: [Int: Int] = [:]
    for (fault, place) in zip(DataCheckTests.faults.indices, places) { planted[place] = fault }
    let lines = (0..<300).map { number in
      planted[number].map { DataCheckTests.faults[$0].bytes } ?? Array(good(number).utf8)
    }
    try folder.write("one.jsonl", Array(lines[..<200].map { $0 + [0x0A] }.joined()))
    try folder.write("two.jsonl", Array(lines[200...].map { $0 + [0x0A] }.joined()))
    let meta = try folder.write(
      "meta.json",
      #"{"one": {"root": ".", "annotation": "one.jsonl", "length": 200}, "#
        + #""two": {"root": "", "annotation": "two.jsonl", "repeat_time": 2, "length": 100}}"#)
    let source = try SampleSource(
      metaPath: meta, modelFolder: DataFolder.model, options: .init(maxSequenceLength: 512))
    return (source, planted.mapValues { DataCheckTests.faults[$0].kind })
  }

  @Test(arguments: [1, 4]) func `all planted faults are named and nothing else`(
    _ workers: Int
  ) async throws {
    let folder = try DataFolder()
    let (source, planted) = try plant(folder)
    #expect(planted.count == 20)
    let report = try await DataCheck(source, workers: workers).run()
    var found: [Int: SampleFlaw.Kind] = [:]
    for flaw in report.flaws {
      found[flaw.source.line - 1 + (flaw.source.dataset == "two" ? 200 : 0)] = flaw.kind
    }
    #expect(found == planted)
    #expect(report.flaws.count == 20)
    #expect(report.fatalFlaws.count == 19)
    #expect(report.notes.isEmpty)
    let kinds = report.datasets.flatMap(\.flaws)
    #expect(kinds.reduce(0) { $0 + $1.count } == 20)
    let json = report.json(report.steps(TrainingConfiguration()))
    #expect(json.contains("\"flawed\": 20,"))
  }

  @Test func `headers alone do not show what is torn behind them`() async throws {
    let folder = try DataFolder()
    let report = try await DataCheck(plant(folder).0, depth: .headers).run()
    #expect(report.flaws.count == 18)
  }

  @Test func `flawed data are left out when that is asked for`() async throws {
    let folder = try DataFolder()
    let (source, planted) = try plant(folder)
    let report = try await DataCheck(source).run()
    #expect {
      try report.trainingSet(skippingBad: false)
    } throws: { error in
      guard case TrainingDataError.flawedSamples(let count, let total, let first) = error
      else { return false }
      return count == 19 && total == 300 && first.count == 19
    }
    let set = try report.trainingSet(skippingBad: true)
    let fatal = planted.filter { $0.value != .overLong }
    #expect(source.count == 400)
    #expect(set.count == 400 - fatal.reduce(0) { $0 + ($1.key < 200 ? 1 : 2) })
    var read = 0
    for try await sample in set.stream(set.indices, workers: 2) {
      #expect(sample.ids.count == set.lengths[read])
      #expect(Int(sample.key) == set.indices[read])
      read += 1
    }
    #expect(read == set.count)
  }

  @Test func `figures and steps are counted exactly`() async throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    let source = try folder.source(
      [line("a", image: nil), line("<image>"), line("a", "b c d e f", image: nil)],
      keys: #", "repeat_time": 2, "length": 4, "data_augment": true, "max_dynamic_patch": 6"#)
    let report = try await DataCheck(source).run()
    let samples = try (0..<3).map(source.load)
    let lengths = samples.map(\.ids.count)
    let figures = try #require(report.datasets.first)
    #expect(figures.lines == 3 && figures.times == 2 && figures.usable == 3)
    #expect(figures.pictures == 1 && figures.imageTokens == 4)
    #expect(figures.tokens == lengths.reduce(0, +))
    #expect(figures.learntTokens == samples.reduce(0) { $0 + $1.labels.count { $0 != -100 } })
    #expect(figures.medianTokens == lengths.sorted()[1])
    #expect(figures.percentile95Tokens == lengths.max() && figures.maxTokens == lengths.max())
    #expect(report.notes.count == 3)

    // Six samples: a step of four, of which two are left.
    var training = TrainingConfiguration()
    training.globalBatchSize = 4
    training.seed = 9
    let order = EpochOrder(TrainingLength(samples: 6, training), seed: 9)
    let permutation = order.permutation(epoch: 0)
    let trained = order.samples(permutation, step: 0).map { $0 % 3 }
    let first = trained.reduce(0) { $0 + lengths[$1] }
    var steps = try #require(report.steps(training))
    #expect(steps.stepsPerEpoch == 1 && steps.leftOut == 2 && steps.microBatches == 4)
    #expect(steps.tokens == first && steps.minTokens == first && steps.maxTokens == first)
    #expect(steps.imageTokens == 4 * trained.count { $0 == 1 })

    // In micro-batches of two there are two steps' worth only where their count says so.
    training.microBatchSize = 2
    #expect(report.steps(training)?.stepsPerEpoch == 1)
    training.microBatchSize = 4
    steps = try #require(report.steps(training))
    #expect(steps.stepsPerEpoch == 2 && steps.leftOut == 0 && steps.microBatches == 2)
    #expect(steps.tokens == 2 * figures.tokens && steps.imageTokens == 8)
    #expect(steps.minTokens == first && steps.maxTokens == first)

    training.padToMax = true
    #expect(report.steps(training)?.tokens == 6 * source.encoder.maxSequenceLength)
    training.padToMax = false
    training.pack = true
    steps = try #require(report.steps(training))
    #expect(steps.tokens == 2 * figures.tokens)
    // All four samples of a step fit into one.
    #expect(source.encoder.maxSequenceLength > 2 * figures.tokens && steps.microBatches == 2)
  }

  @Test func `the digest is that of the lines and the pictures' sizes`() async throws {
    let folder = try DataFolder()
    func digest(_ lines: [String], limit: Int = 512) async throws -> String {
      let source = try folder.source(lines, options: .init(maxSequenceLength: limit))
      return try await DataCheck(source, depth: .headers).run().digest()
    }
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    let lines = [line("a", image: nil), line("<image>")]
    let first = try await digest(lines)
    #expect(try await digest(lines) == first)
    // As many tokens, in other words.
    #expect(try await digest([line("b", image: nil), line("<image>")]) != first)
    #expect(try await digest(lines.reversed()) != first)
    #expect(try await digest(lines, limit: 511) != first)
    try folder.copy("golden/v12-tiny/second.jpg", to: "image.jpg")
    #expect(try await digest(lines) != first)
  }

  @Test func `a check that is cancelled ends`() async throws {
    let folder = try DataFolder()
    let source = try plant(folder).0
    let task = Task { try await DataCheck(source).run() }
    task.cancel()
    await #expect(throws: CancellationError.self) { _ = try await task.value }
  }

  @Test func `a sample is shown with what is learnt`() async throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    let view = try folder.source([line("<image>\\nWhat?", "Red\\n é.")]).view(ofSample: 0)
    #expect(view.spans.map(\.isLearnt) == [false, true])
    #expect(
      view.spans[0].text
        == "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n"
        + "<img><IMG_CONTEXT>×4</img>\nWhat?<|im_end|><|im_start|>assistant\n")
    #expect(view.spans[1].text == "Red\n é.<|im_end|>")
    #expect(view.imageTokens == 4 && view.id == "1")
    #expect(view.tokens == view.spans.reduce(0) { $0 + $1.tokens })
    #expect(view.pictures.map(\.name) == ["image.jpg"])
    #expect(throws: TrainingDataError.self) {
      try folder.source([line(image: nil)]).view(ofSample: 1)
    }
  }
}
