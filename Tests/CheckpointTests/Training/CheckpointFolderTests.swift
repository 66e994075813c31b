import Support
import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct CheckpointFolderTests {
  private func steps(_ output: String) -> [Int] { CheckpointFolder.all(in: output).map(\.step) }

  /// Cuts a file.
  private func cut(_ path: String, to count: Int) {
    #expect(truncate(path, off_t(count)) == 0)
  }

  @Test func `the newest whole checkpoint is found by its number`() throws {
    let run = try SmallRun()
    #expect(CheckpointFolder.latestValid(in: run.output).found == nil)
    for step in [2, 10, 9] { try run.save(step, layout: run.layout(2)) }
    for name in ["checkpoint-11x", "checkpoint-011", "checkpoint--3", "checkpoint-", "other"] {
      #expect(mkdir("\(run.output)/\(name)", 0o755) == 0)
    }
    #expect(steps(run.output) == [2, 9, 10])
    #expect(CheckpointFolder.latestValid(in: run.output).found?.step == 10)
    #expect(CheckpointFolder.latestValid(in: run.output).rejected.isEmpty)
    #expect(folderEntries(run.output).allSatisfy { !$0.hasPrefix("tmp-") })
  }

  @Test func `a checkpoint torn at any byte is never picked up`() throws {
    let run = try SmallRun()
    try run.save(1, layout: run.layout(2))
    let torn = try run.save(2, layout: run.layout(2))
    let manifest = try CheckpointManifest.load(folder: torn.path)
    for name in manifest.files.map(\.path) + [CheckpointManifest.fileName] {
      let path = "\(torn.path)/\(name)"
      let bytes = try readFile(path, limit: 1 << 24)
      let isText = name.hasSuffix(".json")
      // The line's end after the manifest says nothing more.
      let first = bytes.count - (name == CheckpointManifest.fileName ? 2 : 1)
      for count in stride(from: first, through: 0, by: isText && bytes.count < 3000 ? -1 : -499) {
        cut(path, to: count)
        #expect(throws: CheckpointError.self) { try torn.check() }
      }
      let (found, rejected) = CheckpointFolder.latestValid(in: run.output)
      #expect(found?.step == 1 && rejected.map(\.folder) == [torn], "\(name)")
      unlink(path)
      #expect(CheckpointFolder.latestValid(in: run.output).found?.step == 1, "\(name)")
      try AtomicFile.write(bytes, to: path)
      try torn.check(digests: true)
    }
  }

  @Test func `any changed byte shows in the digests`() throws {
    let run = try SmallRun()
    try run.save(1, layout: run.layout(1))
    let changed = try run.save(2, layout: run.layout(1))
    var random = SeededGenerator(3)
    for file in try CheckpointManifest.load(folder: changed.path).files {
      let path = "\(changed.path)/\(file.path)"
      let bytes = try readFile(path, limit: 1 << 24)
      guard !bytes.isEmpty else { continue }
      var other = bytes
      other[Int.random(in: 0..<bytes.count, using: &random)] ^= 0x10
      try AtomicFile.write(other, to: path)
      try changed.check()
      #expect(
        throws: CheckpointError.damaged(
          file: path, expected: "SHA-256 \(Digest.sha256(bytes))", found: Digest.sha256(other))
      ) { try changed.check(digests: true) }
      #expect(CheckpointFolder.latestValid(in: run.output, digests: true).found?.step == 1)
      try AtomicFile.write(bytes, to: path)
    }
  }

  @Test func `a renamed checkpoint, or one without its state, is none`() throws {
    let run = try SmallRun()
    let saved = try run.save(3, layout: run.layout(1))
    #expect(rename(saved.path, "\(run.output)/checkpoint-7") == 0)
    #expect(CheckpointFolder.latestValid(in: run.output).found == nil)
    var manifest = try CheckpointManifest.load(folder: "\(run.output)/checkpoint-7")
    manifest.step = 7
    manifest.files.removeAll { $0.path == "config.json" }
    try AtomicFile.write(
      Array(manifest.json.text.utf8), to: "\(run.output)/checkpoint-7/manifest.json")
    #expect(
      throws: CheckpointError.missingFile("\(run.output)/checkpoint-7/config.json")
    ) { try CheckpointFolder(path: "\(run.output)/checkpoint-7", step: 7).check() }
  }

  @Test(arguments: [
    "", "[]", "{}", #"{"version":1,"step":2}"#, #"{"version":2,"step":2,"files":[]}"#,
    #"{"version":1,"step":-2,"files":[]}"#, #"{"version":1,"step":2,"files":[1]}"#,
    #"{"version":1,"step":2,"files":[{"path":"../x","bytes":1}]}"#,
    #"{"version":1,"step":2,"files":[{"path":"/etc/passwd","bytes":1}]}"#,
    #"{"version":1,"step":2,"files":[{"path":"","bytes":1}]}"#,
    #"{"version":1,"step":2,"files":[{"path":"a//b","bytes":1}]}"#,
    #"{"version":1,"step":2,"files":[{"path":"config.json","bytes":-1}]}"#,
    #"{"version":1,"step":2,"files":[{"path":"config.json"}]}"#,
    #"{"version":1,"step":2,"files":[]}"#,
  ])
  func `a manifest that is none is refused`(text: String) throws {
    let folder = try TemporaryFolder()
    let path = try folder.makeFolder("checkpoint-2")
    try folder.write("checkpoint-2/manifest.json", text)
    try folder.write("checkpoint-2/config.json", "{}")
    #expect(throws: CheckpointError.self) {
      try CheckpointFolder(path: path, step: 2).check(digests: true)
    }
  }

  @Test func `the oldest whole checkpoints go, others stay`() throws {
    let run = try SmallRun()
    for step in 1...5 { try run.save(step, layout: run.layout(1)) }
    unlink("\(run.output)/checkpoint-5/config.json")
    #expect(mkdir("\(run.output)/checkpoint-0", 0o755) == 0)
    #expect(CheckpointFolder.prune(run.output, keeping: 0).isEmpty)
    #expect(CheckpointFolder.prune(run.output, keeping: 2).map(\.step) == [1, 2])
    #expect(steps(run.output) == [0, 3, 4, 5])
    #expect(CheckpointFolder.prune(run.output, keeping: 2).isEmpty)
    #expect(CheckpointFolder.latestValid(in: run.output).found?.step == 4)
    #expect(folderEntries(run.output).count == 4)
  }

  @Test(arguments: [false, true])
  func `a checkpoint moved aside for one that never came gets its name back`(
    atResume: Bool
  ) throws {
    let run = try SmallRun()
    for step in 1...2 { try run.save(step, layout: run.layout(2)) }
    for (old, new) in [("checkpoint-2", "deleted-checkpoint-2"), ("checkpoint-1", "aside")] {
      #expect(rename("\(run.output)/\(old)", "\(run.output)/\(new)") == 0)
    }
    // What a process leaves that ends between two renames, and one in mid-deletion.
    #expect(rename("\(run.output)/aside", "\(run.output)/deleted-checkpoint-1") == 0)
    unlink("\(run.output)/deleted-checkpoint-1/config.json")
    #expect(mkdir("\(run.output)/tmp-checkpoint-2", 0o755) == 0)
    if atResume {
      #expect(CheckpointFolder.latestValid(in: run.output).found?.step == 2)
    }
    CheckpointFolder.removeStale(in: run.output)
    #expect(folderEntries(run.output) == ["checkpoint-2"])
    try CheckpointFolder.all(in: run.output).first?.check(digests: true)
  }

  @Test func `a checkpoint whose deletion is under way, or that was replaced, stays away`() throws {
    let run = try SmallRun()
    try run.save(1, layout: run.layout(1))
    let aside = "\(run.output)/deleted-checkpoint-1"
    #expect(rename("\(run.output)/checkpoint-1", aside) == 0)
    do {
      let lock = FolderLock(aside)
      withExtendedLifetime(lock) {
        CheckpointFolder.removeStale(in: run.output)
        #expect(folderEntries(run.output) == ["deleted-checkpoint-1"])
      }
    }
    #expect(rename(aside, "\(run.folder.path)/old") == 0)
    let second = try run.save(1, layout: run.layout(2))
    #expect(rename("\(run.folder.path)/old", aside) == 0)
    CheckpointFolder.removeStale(in: run.output)
    #expect(folderEntries(run.output) == ["checkpoint-1"])
    #expect(fileExists("\(second.path)/model.safetensors.index.json"))
  }

  @Test func `leftovers are removed, but not what somebody is writing`() throws {
    let run = try SmallRun()
    try run.save(1, layout: run.layout(1))
    for name in ["tmp-checkpoint-2", "deleted-checkpoint-0", "tmp-other"] {
      #expect(mkdir("\(run.output)/\(name)", 0o755) == 0)
      try run.folder.write("output/\(name)/model.safetensors", "torn")
    }
    let writer = try CheckpointWriter.begin(
      output: run.output, step: 3, layout: run.layout(1), source: run.source)
    CheckpointFolder.removeStale(in: run.output)
    #expect(folderEntries(run.output) == ["checkpoint-1", "tmp-checkpoint-3", "tmp-other"])
    writer.abandon()
    #expect(folderEntries(run.output) == ["checkpoint-1", "tmp-other"])
  }
}
