import Dispatch
import Synchronization
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct AtomicFolderTests {
  private let folder: TemporaryFolder
  private var name: String { "\(folder.path)/model" }

  init() throws { folder = try TemporaryFolder() }

  private func fill(_ folder: AtomicFolder, _ text: String = "new") throws {
    try AtomicFolderTests.fill(folder, text)
  }

  private static func fill(_ folder: AtomicFolder, _ text: String) throws {
    try AtomicFile.write(Array(text.utf8), to: "\(folder.path)/file")
  }

  private func content(_ path: String) -> String? {
    (try? readFile("\(path)/file", limit: 100)).map { String(decoding: $0, as: UTF8.self) }
  }

  @Test(arguments: [false, true])
  func `a new folder appears whole, where nothing or an empty one was`(exists: Bool) throws {
    if exists { _ = try folder.makeFolder("model") }
    let made = try AtomicFolder(new: name + "/")
    try fill(made)
    #expect(content(name) == nil)
    try made.commit(replacing: false)
    #expect(content(name) == "new" && folder.names == ["model"])
  }

  @Test func `a folder that is in use is refused before and after the work`() throws {
    _ = try folder.makeFolder("model")
    let made = try AtomicFolder(new: name)
    try folder.write("model/file", "theirs")
    let inUse = CheckpointError.folderInUse(folder: name, file: "file")
    #expect(throws: inUse) { try AtomicFolder(new: name) }
    try fill(made)
    #expect(throws: inUse) { try made.commit(replacing: false) }
    #expect(content(name) == "theirs" && folder.names == ["model"])
  }

  @Test func `what cannot be replaced is known before the work`() throws {
    try folder.write("file", "")
    #expect(symlink(folder.path, name) == 0)
    for path in [name, "\(folder.path)/file", "/proc/self/fdinfo/.."] {
      #expect(throws: CheckpointError.self) { try AtomicFolder(new: path) }
    }
    #expect(folder.names == ["file", "model"])
  }

  @Test func `a folder that was given up does not take a later one's files along`() throws {
    let path = "\(folder.path)/tmp"
    var first: AtomicFolder? = try AtomicFolder(name, filledAt: path)
    first?.abandon()
    #expect(folder.names.isEmpty)
    let second = try AtomicFolder(name, filledAt: path)
    try fill(second)
    first?.abandon()
    #expect(throws: CheckpointError.unwritable(file: path, reason: "it was given up")) {
      try first?.commit(replacing: true)
    }
    first = nil
    try second.commit(replacing: true)
    second.abandon()
    #expect(content(name) == "new" && folder.names == ["model"])
  }

  @Test func `a folder that is replaced is there at every moment`() throws {
    let probe = try (folder.makeFolder("a"), folder.makeFolder("b"))
    try AtomicFolder(probe.0, filledAt: probe.1).commit(replacing: true)
    let made = try AtomicFolder(new: name)
    try fill(made, "0")
    try made.commit(replacing: false)
    let misses = Atomic(0)
    let isOver = Atomic(false)
    DispatchQueue.concurrentPerform(iterations: 2) { [name] thread in
      if thread == 0 {
        while !isOver.load(ordering: .relaxed) {
          if !fileExists(name) { misses.add(1, ordering: .relaxed) }
        }
        return
      }
      for round in 1...200 {
        guard let next = try? AtomicFolder(name, filledAt: name + "-tmp") else { continue }
        try? AtomicFolderTests.fill(next, "\(round)")
        try? next.commit(replacing: true)
      }
      isOver.store(true, ordering: .relaxed)
    }
    #expect(misses.load(ordering: .relaxed) == 0)
    #expect(content(name) == "200" && folder.names == ["a", "model"])
  }

  @Test func `somebody's folder of the name for what is deleted stays`() throws {
    for (path, text) in [("model", "old"), ("deleted-model", "theirs")] {
      _ = try folder.makeFolder(path)
      try folder.write("\(path)/file", text)
    }
    let made = try AtomicFolder(name, filledAt: name + "-tmp")
    try fill(made)
    try made.commit(replacing: true)
    #expect(content(name) == "new" && content("\(folder.path)/deleted-model") == "theirs")
  }

  @Test func `a file system that cannot exchange has folders replaced in two steps`() throws {
    _ = try folder.makeFolder("model")
    try folder.write("model/file", "old")
    let made = try AtomicFolder(name, filledAt: name + "-tmp")
    try fill(made)
    try made.replace(exchanging: false)
    #expect(content(name) == "new" && folder.names == ["model"])
  }

  @Test func `what a process left unfinished is removed, and nothing that is called otherwise`()
    throws
  {
    let kept = [".model.12x.tmp", ".model.tmp", ".modell.12.tmp", "model.12.tmp", "tmp-model"]
    for name in kept + [".model.999999999.tmp"] {
      _ = try folder.makeFolder(name)
      try folder.write("\(name)/file", "torn")
    }
    try AtomicFolder(new: name).commit(replacing: false)
    #expect(folder.names == (kept + ["model"]).sorted())
  }
}
