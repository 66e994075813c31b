import Dispatch
import Synchronization

/// A model folder that appears when it is whole, and that a process which is ended while it writes
/// leaves to the next one: files that were finished are not written again.
///
/// Until then it is `.NAME.unfinished` beside its place, with a journal of the finished files and
/// their digests, and of what they were made from. A file counts when its bytes have the digest,
/// and all of them go when they were made from something else.
final class ResumableFolder: Sendable {
  /// What was found of an earlier attempt.
  enum Found: Sendable, Equatable {
    case nothing
    /// Files that are kept, and those that the journal has and that are missing or damaged.
    case files(kept: Int, damaged: [String])
    /// Everything went: these of what the files are made from are not what they were.
    case other(changed: [String])
  }

  static let journalName = "unfinished.json"
  private static let version = 1
  private static let maximumBytes = 16 << 20
  private static let maximumFiles = 1 << 16

  private struct File: Sendable, Equatable {
    var path: String
    var byteCount: Int
    var digest: String
  }

  let found: Found
  var path: String { target.path }
  private let target: AtomicFolder
  private let ingredients: [String: String]
  private let files: Mutex<[File]>

  /// - Parameter ingredients: what decides every byte of the files, by name.
  /// - Throws: ``CheckpointError/folderInUse(folder:file:)``,
  ///   ``CheckpointError/beingWritten(folder:)``, ``CheckpointError/unwritable(file:reason:)``.
  init(_ destination: String, ingredients: [String: String]) throws {
    target = try AtomicFolder(resuming: destination)
    self.ingredients = ingredients
    let journal = "\(target.path)/\(ResumableFolder.journalName)"
    var kept: [File] = []
    // A journal that cannot be read says nothing of the files beside it.
    if let (earlier, listed) = try? ResumableFolder.read(journal) {
      let changed = Set(earlier.keys).union(ingredients.keys)
        .filter { earlier[$0] != ingredients[$0] }
      if changed.isEmpty {
        kept = ResumableFolder.whole(listed, in: target.path)
        let damaged = listed.filter { file in !kept.contains(file) }.map(\.path)
        found = .files(kept: kept.count, damaged: damaged)
      } else {
        found = .other(changed: changed.sorted())
      }
    } else {
      found = .nothing
    }
    target.clear(keeping: Set(kept.map(\.path)))
    files = Mutex(kept)
    try writeJournal(kept)
  }

  /// Whether a file is there from an earlier attempt.
  func isFinished(_ name: String) -> Bool {
    files.withLock { $0.contains { $0.path == name } }
  }

  /// Says that a file is whole and on disk.
  ///
  /// - Throws: ``CheckpointError`` when it cannot be read, or the journal not be written.
  func finish(_ name: String) throws {
    let path = "\(self.path)/\(name)"
    let file = File(
      path: name, byteCount: try OpenFile(reading: path).byteCount,
      digest: try Digest.sha256(file: path))
    let all = files.withLock { files in
      files.append(file)
      return files
    }
    try writeJournal(all)
  }

  /// Gives the folder its name.
  ///
  /// - Throws: ``CheckpointError/folderInUse(folder:file:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``.
  func commit() throws {
    try target.commit(replacing: false)
    // Not before: who is ended here has everything, and would else have nothing.
    removeFile("\(target.destination)/\(ResumableFolder.journalName)")
  }

  // MARK: Journal

  private func writeJournal(_ files: [File]) throws {
    let json = JSONValue.object([
      ("version", .integer(ResumableFolder.version)),
      (
        "ingredients",
        .object(ingredients.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })
      ),
      (
        "files",
        .array(
          files.map {
            .object([
              ("path", .string($0.path)), ("bytes", .integer($0.byteCount)),
              ("sha256", .string($0.digest)),
            ])
          })
      ),
    ])
    try AtomicFile.write(
      Array(json.text.utf8), to: "\(path)/\(ResumableFolder.journalName)")
  }

  private static func read(_ path: String) throws -> ([String: String], [File]) {
    let object = try ConfigurationObject(readFile(path, limit: maximumBytes), file: path)
    _ = try object.integer("version", in: version...version)
    let files = try object.objects("files", limit: maximumFiles).map { file in
      File(
        path: try file.requiredString("path"),
        byteCount: try file.integer("bytes", in: 0...Int.max),
        digest: try file.requiredString("sha256"))
    }
    return (
      try object.requiredObject("ingredients").allStrings(limit: maximumFiles),
      files.filter { !$0.path.utf8.contains(UInt8(ascii: "/")) && !$0.path.hasPrefix(".") }
    )
  }

  /// The files that are what the journal says. Reads all of them, as many at a time as there are
  /// cores.
  private static func whole(_ files: [File], in folder: String) -> [File] {
    let isWhole = Mutex([Bool](repeating: false, count: files.count))
    DispatchQueue.concurrentPerform(iterations: files.count) { index in
      let path = "\(folder)/\(files[index].path)"
      guard let size = try? OpenFile(reading: path).byteCount, size == files[index].byteCount,
        let digest = try? Digest.sha256(file: path), digest == files[index].digest
      else { return }
      isWhole.withLock { $0[index] = true }
    }
    return zip(files, isWhole.withLock { $0 }).filter(\.1).map(\.0)
  }
}
