import Testing

@testable import Training

@Suite struct TrainingLogTests {
  private func full() -> TrainingLog {
    var log = TrainingLog(
      step: 7, epoch: 0.07, loss: 0.1 + 0.2, learningRate: 1e-5, gradNorm: 12.5)
    log.tokensPerSecond = 1e-310
    log.samplesPerSecond = 3
    log.flopUtilization = 0.25
    log.bubble = 1.0 / 3
    log.scheduledBubble = 0.3
    log.stepSeconds = 1.5
    log.labelledTokens = 400
    log.memory = [("vision-0", 12_345_678_901), ("language \"1\"", 5)]
    log.notes = [("skipped", "line\n2")]
    return log
  }

  @Test("a line has Hugging Face's names")
  func names() {
    let log = TrainingLog(step: 1, epoch: 0.5, loss: 2.25, learningRate: 1e-5, gradNorm: 3)
    #expect(
      log.line == "{\"loss\": 2.25, \"grad_norm\": 3.0, \"learning_rate\": 1e-05, "
        + "\"epoch\": 0.5, \"step\": 1}")
    #expect(
      full().line.hasSuffix(
        "\"labelled_tokens\": 400, \"memory\": {\"vision-0\": 12345678901, "
          + "\"language \\\"1\\\"\": 5}, \"skipped\": \"line\\n2\"}"))
    #expect(
      log.scalars.map(\.tag) == [
        "train/loss", "train/grad_norm", "train/learning_rate", "train/epoch",
      ])
    #expect(full().scalars.map(\.tag).contains("memory/vision-0"))
  }

  @Test("a line reads back as the same bits")
  func roundTrip() throws {
    #expect(try TrainingLog(line: full().line) == full())
    var random = SystemIndependentRandom(3)
    for _ in 0..<500 {
      let bits = random.bits() << 40 ^ random.bits() << 20 ^ random.bits()
      let loss = Double(bitPattern: bits)
      guard loss.isFinite else { continue }
      let log = TrainingLog(step: 1, epoch: 1, loss: loss, learningRate: 0, gradNorm: 1)
      #expect(try TrainingLog(line: log.line).loss.bitPattern == loss.bitPattern)
    }
  }

  @Test("losses that are no number are written as Python's json writes them")
  func notFinite() throws {
    for (value, text) in [
      (Double.nan, "NaN"), (.infinity, "Infinity"), (-.infinity, "-Infinity"),
    ] {
      let log = TrainingLog(step: 1, epoch: 1, loss: value, learningRate: 0, gradNorm: value)
      #expect(log.line.hasPrefix("{\"loss\": \(text), \"grad_norm\": \(text), "))
      let read = try TrainingLog(line: log.line)
      #expect(read.loss.isNaN == value.isNaN && (value.isNaN || read.loss == value))
    }
  }

  @Test(
    "a line that is no log is refused by its number",
    arguments: [
      ("[]", "no JSON object"), ("{\"step\": 1}", "no number \"loss\""),
      ("{\"loss\": 1}", "no number \"step\""), ("{\"step\": 1.5, \"loss\": 1}", "step is no count"),
      ("{\"step\": -1, \"loss\": 1}", "step is no count"),
      ("{\"step\": 1", "no JSON at byte 10: no comma between members"),
    ])
  func refused(text: String, reason: String) {
    #expect(throws: TrainingError.invalidLogLine(line: 9, reason: reason)) {
      try TrainingLog(line: text, number: 9)
    }
  }

  @Test("a log is read line by line, without a last line that was cut off")
  func files() throws {
    let lines = (1...3).map {
      TrainingLog(step: $0, epoch: 0, loss: 1, learningRate: 0, gradNorm: 0).line
    }
    func steps(_ text: String) throws -> [Int] {
      try TrainingLog.read(Array(text.utf8)).map(\.step)
    }
    #expect(try steps(lines.joined(separator: "\n\n") + "\n") == [1, 2, 3])
    #expect(try steps(lines[0] + "\r\n" + lines[1].dropLast(5)) == [1])
    #expect(try steps("{") == [])
    #expect(try steps("") == [])
    #expect(throws: TrainingError.invalidLogLine(line: 2, reason: "no JSON object")) {
      try steps(lines[0] + "\n3\n")
    }
  }
}

@Suite struct JSONTextTests {
  @Test("values are read")
  func values() throws {
    let text = " {\"a\": [1, -2.5e3, true, false, null], \"b\\u00e9\\ud83d\\ude00\\n\": {}} "
    #expect(
      try JSONText.parse(Array(text.utf8))
        == .object([
          ("a", .array([.number(1), .number(-2500), .boolean(true), .boolean(false), .null])),
          ("bé😀\n", .object([])),
        ]))
  }

  @Test(
    "what is no JSON is refused",
    arguments: [
      "", "{", "[1,]", "[1 2]", "{\"a\" 1}", "{1: 2}", "\"a", "\"\\x\"", "\"\\ud800\"", "\"\\u12\"",
      "+1", "1e999", "--1", "tru", "1 2", "\"\u{1}\"", "{\"a\":1,}", "0x10", "nan", "-",
    ])
  func refused(text: String) {
    #expect(throws: TrainingError.self) { try JSONText.parse(Array(text.utf8)) }
  }

  @Test("nesting ends at a depth")
  func depth() {
    #expect(throws: TrainingError.invalidJSON(offset: 64, reason: "nested deeper than 64")) {
      try JSONText.parse(Array(repeating: UInt8(ascii: "["), count: 100_000))
    }
  }

  @Test("bytes that are no UTF-8 are refused")
  func encoding() {
    #expect(throws: TrainingError.self) { try JSONText.parse([0x22, 0xFF, 0x22]) }
  }

  @Test("strings written are read back")
  func strings() throws {
    let text = "a\"\\\n\r\t\u{1}\u{1F}é😀/"
    #expect(try JSONText.parse(Array(JSONText.quoted(text).utf8)) == .string(text))
  }
}
