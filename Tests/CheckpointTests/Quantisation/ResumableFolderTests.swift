import Tensors
import Testing

@testable import Checkpoint

@Suite struct ResumableFolderTests {
  private let folder: TemporaryFolder
  private let destination: String

  init() throws {
    folder = try TemporaryFolder()
    destination = "\(folder.path)/model"
  }

  private var unfinished: String { "\(folder.path)/.model.unfinished" }

  private func open(_ ingredients: [String: String] = ["a": "1"]) throws -> ResumableFolder {
    try ResumableFolder(destination, ingredients: ingredients)
  }

  private func write(_ names: String..., into folder: ResumableFolder) throws {
    for name in names {
      try AtomicFile.write(Array("bytes of \(name)".utf8), to: "\(folder.path)/\(name)")
      try folder.finish(name)
    }
  }

  @Test func `finished files are there for the next attempt`() throws {
    do {
      let first = try open()
      #expect(first.found == .nothing && !first.isFinished("x"))
      try write("x", "y", into: first)
      try AtomicFile.write([1], to: "\(first.path)/half")
      try AtomicFile.write([1], to: "\(first.path)/.z.17.1.tmp")
    }
    #expect(folder.names == [".model.unfinished"])
    let second = try open()
    #expect(second.found == .files(kept: 2, damaged: []))
    #expect(second.isFinished("x") && second.isFinished("y") && !second.isFinished("half"))
    #expect(folderEntries(second.path) == [ResumableFolder.journalName, "x", "y"])
    try write("z", into: second)
    try second.commit()
    #expect(folder.names == ["model"] && folderEntries(destination) == ["x", "y", "z"])
    #expect(try readFile("\(destination)/y", limit: 99) == Array("bytes of y".utf8))
  }

  @Test func `files that are damaged or gone are written again`() throws {
    try write("x", "y", "z", into: open())
    try AtomicFile.write(Array("bytes of X".utf8), to: "\(unfinished)/x")
    removeFile("\(unfinished)/z")
    let next = try open()
    #expect(next.found == .files(kept: 1, damaged: ["x", "z"]))
    #expect(folderEntries(unfinished) == [ResumableFolder.journalName, "y"])
    #expect(!next.isFinished("x") && next.isFinished("y"))
  }

  @Test(arguments: [
    (["a": "2"], ["a"]), (["a": "1", "b": "1"], ["b"]), ([:], ["a"]), (["c": "1"], ["a", "c"]),
  ])
  func `files that were made from something else go`(
    ingredients: [String: String], changed: [String]
  ) throws {
    try write("x", into: open())
    let next = try open(ingredients)
    #expect(next.found == .other(changed: changed) && !next.isFinished("x"))
    #expect(folderEntries(unfinished) == [ResumableFolder.journalName])
  }

  @Test(arguments: [
    "", "{", "[]", "{}", #"{"version": 2, "ingredients": {"a": "1"}, "files": []}"#,
    #"{"version": 1, "ingredients": {"a": 1}, "files": []}"#,
    #"{"version": 1, "ingredients": {"a": "1"}, "files": [{"path": "x"}]}"#,
    #"{"version": 1, "ingredients": {"a": "1"}, "files": [{"path": "x", "bytes": -1, "sha256": ""}]}"#,
  ])
  func `a journal that cannot be read says nothing`(text: String) throws {
    try write("x", into: open())
    try AtomicFile.write(Array(text.utf8), to: "\(unfinished)/\(ResumableFolder.journalName)")
    let next = try open()
    #expect(next.found == .nothing && !next.isFinished("x"))
    #expect(folderEntries(unfinished) == [ResumableFolder.journalName])
  }

  @Test func `a journal names no files of other folders`() throws {
    try write("x", into: open())
    let other = try folder.write("other", "mine")
    let digest = Digest.sha256(Array("mine".utf8))
    let text =
      #"{"version": 1, "ingredients": {"a": "1"}, "files": [{"path": "../other", "bytes": 4, "#
      + #""sha256": "\#(digest)"}]}"#
    try AtomicFile.write(Array(text.utf8), to: "\(unfinished)/\(ResumableFolder.journalName)")
    #expect(try !open().isFinished("../other"))
    #expect(fileExists(other))
  }

  @Test func `two cannot write one folder`() throws {
    let first = try open()
    #expect(throws: CheckpointError.beingWritten(folder: unfinished)) { try open() }
    try write("x", into: first)
    #expect(first.isFinished("x"))
  }

  @Test func `a folder in use is refused before the work`() throws {
    _ = try folder.makeFolder("model")
    try folder.write("model/mine", "mine")
    #expect(throws: CheckpointError.folderInUse(folder: destination, file: "mine")) { try open() }
    #expect(folder.names == ["model"])
  }

  @Test func `a folder that came into use meanwhile keeps both`() throws {
    let attempt = try open()
    try write("x", into: attempt)
    _ = try folder.makeFolder("model")
    try folder.write("model/mine", "mine")
    #expect(throws: CheckpointError.folderInUse(folder: destination, file: "mine")) {
      try attempt.commit()
    }
    #expect(folderEntries(destination) == ["mine"])
    #expect(folderEntries(unfinished) == [ResumableFolder.journalName, "x"])
  }

  @Test func `an empty folder is filled`() throws {
    _ = try folder.makeFolder("model")
    let attempt = try ResumableFolder("\(destination)/", ingredients: [:])
    try write("x", into: attempt)
    try attempt.commit()
    #expect(folderEntries(destination) == ["x"])
  }
}
