#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A checkpoint of a training run on disk: `checkpoint-<step>`, a model folder with the state of
/// the optimizer and of the run.
public struct CheckpointFolder: Sendable, Equatable {
  public let path: String
  public let step: Int

  static let prefix = "checkpoint-"
  static let temporaryPrefix = "tmp-"

  /// - Throws: ``CheckpointError`` when the folder lacks a file of its manifest, or has one of
  ///   another size, or, if they are checked, of another digest.
  public func check(digests: Bool = false) throws {
    try requireFolder(path)
    let manifest = try CheckpointManifest.load(folder: path)
    guard manifest.step == step else {
      throw CheckpointError.damaged(
        file: "\(path)/\(CheckpointManifest.fileName)", expected: "step \(manifest.step)",
        found: "the folder of step \(step)")
    }
    let listed = Set(manifest.files.map(\.path))
    for name in ["config.json", TrainerState.fileName, TrainerState.runFileName]
    where !listed.contains(name) {
      throw CheckpointError.missingFile("\(path)/\(name)")
    }
    try manifest.check(folder: path, checksDigests: digests)
  }

  /// All checkpoints in a run's folder, oldest first, valid or not. One that a process left moved
  /// aside gets its name back first.
  public static func all(in output: String) -> [CheckpointFolder] {
    restoreReplaced(in: output)
    return folderEntries(output).compactMap { name in
      step(of: name).map { CheckpointFolder(path: "\(output)/\(name)", step: $0) }
    }.sorted { $0.step < $1.step }
  }

  /// The newest checkpoint that is whole, and why newer ones are not.
  ///
  /// - Parameter digests: reads every byte of the one that is found, and of newer ones.
  public static func latestValid(
    in output: String, digests: Bool = false
  ) -> (found: CheckpointFolder?, rejected: [(folder: CheckpointFolder, reason: any Error)]) {
    var rejected: [(folder: CheckpointFolder, reason: any Error)] = []
    for folder in all(in: output).reversed() {
      do {
        try folder.check(digests: digests)
        return (folder, rejected)
      } catch {
        rejected.append((folder, error))
      }
    }
    return (nil, rejected)
  }

  /// Deletes the oldest checkpoints until no more than `limit` whole ones are left. Those that are
  /// not whole neither count nor go: they may be somebody else's.
  ///
  /// - Parameter limit: 0 or less keeps all.
  /// - Returns: what was deleted.
  @discardableResult
  public static func prune(_ output: String, keeping limit: Int) -> [CheckpointFolder] {
    guard limit > 0 else { return [] }
    let whole = all(in: output).filter { (try? $0.check()) != nil }
    let superfluous = Array(whole.dropLast(limit))
    for folder in superfluous { remove(folder.path) }
    return superfluous
  }

  /// Removes what writers left behind that did not come to an end; not what others are writing.
  public static func removeStale(in output: String) {
    restoreReplaced(in: output)
    for name in folderEntries(output)
    where name.hasPrefix(temporaryPrefix + prefix) || name.hasPrefix(deletedPrefix + prefix) {
      let path = "\(output)/\(name)"
      guard let lock = FolderLock(path) else { continue }
      withExtendedLifetime(lock) { removeFolder(path) }
    }
  }

  /// Gives whole checkpoints that were moved aside for new ones, which did not come to take their
  /// place, their names back. The other way to replace one, where there is no exchange, would
  /// lose both to a process's end.
  static func restoreReplaced(in output: String) {
    for name in folderEntries(output) where name.hasPrefix(deletedPrefix) {
      let original = String(name.dropFirst(deletedPrefix.count))
      let aside = "\(output)/\(name)"
      guard let step = step(of: original), !fileExists("\(output)/\(original)"),
        let lock = FolderLock(aside)
      else { continue }
      withExtendedLifetime(lock) {
        guard (try? CheckpointFolder(path: aside, step: step).check()) != nil else { return }
        if rename(aside, "\(output)/\(original)") == 0 { flushFolder(output) }
      }
    }
  }

  /// Deletes a folder so that no half of it is ever seen under its name.
  static func remove(_ path: String) {
    let doomed = deletedPath(of: path)
    // Until it is gone, nobody brings it back.
    let lock = FolderLock(path)
    withExtendedLifetime(lock) {
      removeFolder(doomed)
      removeFolder(rename(path, doomed) == 0 ? doomed : path)
    }
    flushFolder(parentFolder(of: path))
  }

  /// What a folder is called while it is deleted.
  static func deletedPath(of path: String) -> String {
    let name = path.split(separator: "/").last.map { String($0) } ?? ""
    return "\(parentFolder(of: path))/\(deletedPrefix)\(name)"
  }

  private static let deletedPrefix = "deleted-"

  /// The step in a checkpoint's name; nil for other names.
  static func step(of name: String) -> Int? {
    guard name.hasPrefix(prefix), let step = Int(name.dropFirst(prefix.count)), step >= 0,
      name == "\(prefix)\(step)"
    else { return nil }
    return step
  }
}
