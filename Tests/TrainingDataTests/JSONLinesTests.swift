import Support
import Testing

@testable import TrainingData

@Suite struct JSONLinesTests {
  private func lines(_ text: String) throws -> [JSONLinesFile.Line] {
    let folder = try DataFolder()
    let file = try JSONLinesFile(path: folder.write("a.jsonl", text))
    return try (0..<file.count).map(file.line)
  }

  private func text(_ text: String) -> JSONLinesFile.Line { .text(Array(text.utf8)) }

  @Test func `lines are found without reading what is in them`() throws {
    #expect(try lines("") == [])
    #expect(try lines("\n") == [.empty])
    #expect(try lines("a") == [text("a")])
    #expect(try lines("a\n") == [text("a")])
    #expect(try lines("a\r\n \n\nb\n\n") == [text("a"), .empty, .empty, text("b"), .empty])
  }

  @Test func `a line may be longer than a block, but not than the limit`() throws {
    let folder = try DataFolder()
    let long = [UInt8](repeating: UInt8(ascii: "x"), count: JSONLinesFile.maximumLineBytes - 1)
    let longer = long + Array("xx".utf8)
    let path = try folder.write("a.jsonl", long + [0x0A] + longer + [0x0A] + Array("b".utf8))
    let file = try JSONLinesFile(path: path)
    #expect(file.count == 3)
    #expect(try file.line(0) == .text(long))
    #expect(try file.line(1) == .tooLong(bytes: longer.count + 1))
    #expect(try file.line(2) == text("b"))
  }

  @Test func `a file that is changed meanwhile is not mixed up`() throws {
    let folder = try DataFolder()
    let path = try folder.write("a.jsonl", "one\ntwo\n")
    let file = try JSONLinesFile(path: path)
    try folder.write("a.jsonl", "one\nt")
    #expect(throws: TrainingDataError.changedFile(path: path)) { try file.line(1) }
  }

  @Test(arguments: ["/", "/dev/null", "/nowhere.jsonl"])
  func `what is no file is refused`(_ path: String) {
    #expect(throws: TrainingDataError.self) { try JSONLinesFile(path: path) }
  }

  @Test func `lines changed at random are read or flawed`() throws {
    var random = SeededRandom(11)
    let good = [
      line(), line("a\\u00e9\\ud83d\\ude00", image: #"["a.jpg", "b.jpg"]"#), line(image: nil),
    ].map { Array($0.utf8) }
    var flawed = 0
    for round in 0..<6000 {
      do { _ = try SampleEncoder.turns(SampleRecord(mutated(good[round % 3], &random))) } catch {
        #expect(error is UnplacedFlaw, "\(error)")
        flawed += 1
      }
    }
    #expect(flawed > 2000)
    for line in good {
      for length in line.indices {
        #expect(throws: UnplacedFlaw.self) { try SampleRecord(Array(line.prefix(length))) }
      }
    }
  }

  @Test func `the first byte that is no UTF-8 is named`() throws {
    for (bytes, offset) in [
      ([0x61, 0xFF], 1), ([0xC3, 0xA9, 0xC3], 2), ([0xED, 0xA0, 0x80], 0), ([0x61, 0x80, 0x80], 1),
    ] as [([UInt8], Int)] {
      do {
        _ = try SampleRecord(bytes)
        Issue.record("\(bytes) were taken")
      } catch let flaw as UnplacedFlaw {
        #expect(flaw.kind == .invalidUTF8)
        #expect(flaw.detail.hasPrefix("byte \(offset) "), "\(flaw.detail)")
      }
    }
  }
}
