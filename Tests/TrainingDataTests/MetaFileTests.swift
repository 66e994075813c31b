import Support
import Testing

@testable import TrainingData

@Suite struct MetaFileTests {
  private func read(_ text: String) throws -> MetaFile {
    let folder = try DataFolder()
    try folder.write("a.jsonl", "{}\n")
    return try MetaFile(path: folder.write("meta.json", text))
  }

  @Test func `data sets keep their order and settings`() throws {
    let folder = try DataFolder()
    let annotation = try folder.write("a.jsonl", "")
    let meta = try MetaFile(
      path: folder.write(
        "meta.json",
        #"""
        {
          "z": {"root": "\#(folder.path)", "annotation": "\#(annotation)", "data_augment": false,
                "repeat_time": 3, "length": 20, "max_dynamic_patch": 1, "conv_style": [{}]},
          "a": {"annotation": "a.jsonl", "root": "none", "repeat_time": 0.25, "length": null}
        }
        """#))
    #expect(meta.datasets.map(\.name) == ["z", "a"])
    let z = meta.datasets[0]
    #expect(z.roots == [folder.path])
    #expect(z.annotation == annotation)
    #expect(z.length == 20)
    #expect(z.maxDynamicPatch == 1)
    #expect(z.repetition(ofLines: 7) == (7, 3))
    let a = meta.datasets[1]
    #expect(a.annotation == "\(folder.path)/a.jsonl")
    #expect(a.roots == ["\(folder.path)/none", "none"])
    #expect(a.length == nil)
    #expect(a.repetition(ofLines: 7) == (1, 1))
  }

  @Test(arguments: [
    #""repeat_time": 0"#, #""repeat_time": -1"#, #""repeat_time": 1.5"#, #""repeat_time": NaN"#,
    #""repeat_time": 1e300"#, #""repeat_time": "2""#, #""length": -1"#, #""length": 1.0"#,
    #""data_augment": 1"#, #""max_dynamic_patch": 0"#, #""max_dynamic_patch": 1000"#,
    #""root": 1"#, #""annotation": "a.json""#, #""annotation": ["a.jsonl"]"#,
  ]) func `a value that cannot be is named`(_ member: String) throws {
    let annotation = member.contains("annotation") ? "" : #", "annotation": "a.jsonl""#
    let key = member.split(separator: "\"")[0]
    do {
      _ = try read(#"{"one": {\#(member)\#(annotation)}}"#)
      Issue.record("\(member) was taken")
    } catch TrainingDataError.invalidKey(let path, "one", let found, _, _) {
      #expect(found == key)
      #expect(path.hasSuffix("/meta.json"))
    }
  }

  @Test func `a file that is no meta file is refused where it is wrong`() throws {
    #expect(throws: TrainingDataError.self) { try read("{}") }
    #expect(throws: TrainingDataError.self) { try read("") }
    #expect(throws: TrainingDataError.self) { try read(#"{"a": {"root": ""}}"#) }
    #expect(throws: TrainingDataError.self) { try read(#"{"a": {"annotation": "none.jsonl"}}"#) }
    #expect(throws: TrainingDataError.self) { try read(#"{"a": {}, "a": {}}"#) }
    #expect(throws: TrainingDataError.self) { try read(String(repeating: #"{"a":"#, count: 9999)) }
    do {
      _ = try read("{\n  \"a\": 1,\n  2}")
      Issue.record("a number was taken")
    } catch TrainingDataError.invalidMeta(_, let line, _, _) {
      #expect(line == 2)
    }
    do {
      _ = try read("{\n \"a\": {\"annotation\": \"a.jsonl\"},\n  2}")
      Issue.record("a number was taken for a name")
    } catch TrainingDataError.invalidMeta(_, let line, let column, _) {
      #expect(line == 3)
      #expect(column == 3)
    }
    #expect(throws: TrainingDataError.self) { try MetaFile(path: "/dev/null") }
    #expect(throws: TrainingDataError.self) { try MetaFile(path: "/nowhere/meta.json") }
  }

  @Test func `changed at random it is read or refused`() throws {
    let folder = try DataFolder()
    try folder.write("a.jsonl", "{}\n")
    let path = "\(folder.path)/meta.json"
    let text = Array(
      #"{"a": {"root": ".", "annotation": "a.jsonl", "repeat_time": 2, "length": 1}}"#.utf8)
    var random = SeededRandom(5)
    var refused = 0
    for _ in 0..<3000 {
      do { _ = try MetaFile(mutated(text, &random), path: path) } catch is TrainingDataError {
        refused += 1
      }
    }
    #expect(refused > 1000)
    for length in text.indices {
      #expect(throws: TrainingDataError.self) {
        try MetaFile(Array(text.prefix(length)), path: path)
      }
    }
  }
}

/// Bytes changed, taken out, put in or repeated at random.
func mutated(_ bytes: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
  var bytes = bytes
  for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
    let place = Int.random(in: 0..<bytes.count, using: &random)
    switch Int.random(in: 0..<5, using: &random) {
    case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
    case 1: bytes.remove(at: place)
    case 2: bytes.insert(Array("{}[]\":,\\u0\n".utf8).randomElement(using: &random) ?? 0, at: place)
    case 3: bytes.removeSubrange(place...)
    default:
      let end = min(bytes.count, place + Int.random(in: 1...20, using: &random))
      bytes.insert(contentsOf: bytes[place..<end], at: place)
    }
  }
  return bytes
}
