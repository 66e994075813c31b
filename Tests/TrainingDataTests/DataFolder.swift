import Support

@testable import TrainingData

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif
#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A folder of training data that lives as long as the value.
final class DataFolder: Sendable {
  struct Failure: Error {}

  static let model = Fixtures.path("golden/v12-tiny/checkpoint")

  let path: String

  init() throws {
    let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(base)/training-data-tests-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Failure() }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  @discardableResult
  func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    let file = "\(path)/\(name)"
    let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard descriptor >= 0 else { throw Failure() }
    defer { close(descriptor) }
    guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count else { throw Failure() }
    return file
  }

  @discardableResult
  func write(_ name: String, _ text: String) throws -> String {
    try write(name, Array(text.utf8))
  }

  /// Copies a fixture.
  func copy(_ fixture: String, to name: String) throws {
    try write(name, DataFolder.bytes(Fixtures.path(fixture)))
  }

  static func bytes(_ path: String) throws -> [UInt8] {
    let file = try DataFile(path)
    return try file.bytes(at: 0, count: file.byteCount)
  }

  /// Writes a meta file of one data set with these lines, and opens it.
  func source(
    _ lines: [String], keys: String = "", options: DataOptions = .init()
  ) throws -> SampleSource {
    try write("a.jsonl", lines.map { $0 + "\n" }.joined())
    let meta = try write(
      "meta.json", #"{"some": {"root": ".", "annotation": "a.jsonl"\#(keys)}}"#)
    return try SampleSource(metaPath: meta, modelFolder: DataFolder.model, options: options)
  }

  /// The kind and detail of a sample's flaw; nil when it has none.
  func flaw(_ line: String, options: DataOptions = .init()) throws -> SampleFlaw? {
    let source = try source([line], options: options)
    do {
      _ = try source.load(0)
      return nil
    } catch TrainingDataError.sample(let flaw) {
      return flaw
    }
  }
}

/// A line of one question and one answer.
func line(
  _ question: String = "<image>\\nWhat is it?", _ answer: String = "A circle.",
  image: String? = #""image.jpg""#
) -> String {
  let picture = image.map { #""image": \#($0), "# } ?? ""
  return #"{"id": 1, \#(picture)"conversations": [{"from": "human", "value": "\#(question)"}, "#
    + #"{"from": "gpt", "value": "\#(answer)"}]}"#
}
