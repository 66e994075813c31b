import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A folder that appears under its name complete or not at all: filled beside its place under
/// another name, then renamed. Without ``commit(replacing:)`` nothing of it remains, unless it is
/// to be gone on with.
final class AtomicFolder: Sendable {
  private enum State: UInt8, AtomicRepresentable {
    case open, committing, committed, abandoned
  }

  /// Where its files are written.
  let path: String
  let destination: String
  private let isKept: Bool
  private let lock: FolderLock
  private let state = Atomic(State.open)

  /// A folder that is filled at `path`, whose parent exists. What is there is removed, unless
  /// somebody is writing it.
  ///
  /// - Parameter isKept: what is there stays, also without ``commit(replacing:)``.
  /// - Throws: ``CheckpointError/beingWritten(folder:)``, and what making a folder throws.
  init(_ destination: String, filledAt path: String, isKept: Bool = false) throws {
    try makeFolder(path)
    guard let lock = FolderLock(path) else { throw CheckpointError.beingWritten(folder: path) }
    self.path = path
    self.destination = destination
    self.isKept = isKept
    self.lock = lock
    if isKept { return }
    for entry in folderEntries(path) { AtomicFolder.remove("\(path)/\(entry)") }
  }

  private static func remove(_ path: String) {
    if unlink(path) != 0 { removeFolder(path) }
  }

  /// A folder of any name that does not exist yet, or is empty. Removes what writers before left
  /// of it unfinished.
  ///
  /// - Throws: ``CheckpointError/folderInUse(folder:file:)``,
  ///   ``CheckpointError/beingWritten(folder:)``, ``CheckpointError/unwritable(file:reason:)``.
  convenience init(new destination: String) throws {
    let destination = withoutTrailingSlashes(destination)
    let parent = parentFolder(of: destination)
    try makeFolders(parent)
    let name = destination.split(separator: "/").last.map { String($0) } ?? destination
    AtomicFolder.removeUnfinished(name, in: parent)
    let path = "\(parent)/.\(name).\(getpid()).tmp"
    try AtomicFolder.requireReplaceable(destination, probe: "\(path).probe")
    try self.init(destination, filledAt: path)
  }

  /// A folder of any name that does not exist yet, or is empty, filled at a path that its name
  /// alone decides, where what a writer before left is still there.
  ///
  /// - Throws: what ``init(new:)`` throws.
  convenience init(resuming destination: String) throws {
    let destination = withoutTrailingSlashes(destination)
    let parent = parentFolder(of: destination)
    try makeFolders(parent)
    let name = destination.split(separator: "/").last.map { String($0) } ?? destination
    let path = "\(parent)/.\(name).unfinished"
    try AtomicFolder.requireReplaceable(destination, probe: "\(path).\(getpid()).probe")
    try self.init(destination, filledAt: path, isKept: true)
  }

  /// Whether a folder may be replaced shows before the work: it may be where a disk is mounted.
  private static func requireReplaceable(_ destination: String, probe: String) throws {
    guard fileExists(destination) else { return }
    try makeFolder(probe)
    guard rename(probe, destination) == 0 else {
      let code = errno
      rmdir(probe)
      throw AtomicFolder.failure(destination, code)
    }
  }

  /// Removes what is there, but for some files.
  func clear(keeping files: Set<String>) {
    for entry in folderEntries(path) where !files.contains(entry) {
      AtomicFolder.remove("\(path)/\(entry)")
    }
  }

  deinit { abandon() }

  /// Flushes the folder and gives it its name; that its files are on disk is their writers' part.
  ///
  /// - Parameter replacing: whether a folder of the name that is not empty goes. At no time is
  ///   there none of the name, where the file system can exchange two.
  /// - Throws: ``CheckpointError/folderInUse(folder:file:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``; then nothing of the folder remains, unless it
  ///   is kept.
  func commit(replacing: Bool) throws {
    guard
      state.compareExchange(
        expected: .open, desired: .committing, ordering: .relaxed
      ).exchanged
    else { throw CheckpointError.unwritable(file: path, reason: "it was given up") }
    do {
      flushFolder(path)
      // An empty folder is replaced by the rename itself.
      if rename(path, destination) != 0 {
        let code = errno
        guard replacing, code == ENOTEMPTY || code == EEXIST else {
          throw AtomicFolder.failure(destination, code)
        }
        try replace()
      }
      flushFolder(parentFolder(of: destination))
      state.store(.committed, ordering: .relaxed)
    } catch {
      state.store(.abandoned, ordering: .relaxed)
      if !isKept { removeFolder(path) }
      throw error
    }
  }

  /// Removes the folder, if it is still open and not to be kept. Whoever makes another at the same path need not
  /// fear this one.
  func abandon() {
    if state.compareExchange(
      expected: .open, desired: .abandoned, ordering: .relaxed
    ).exchanged, !isKept {
      removeFolder(path)
    }
  }

  /// Puts the folder in the old one's place, which goes when that is on disk.
  ///
  /// - Parameter exchanging: false as on a file system that cannot: a process that ends between
  ///   two renames leaves the old one under the name of what is deleted, from which
  ///   ``CheckpointFolder/restoreReplaced(in:)`` brings it back.
  func replace(exchanging: Bool = true) throws {
    let parent = parentFolder(of: destination)
    if exchanging, exchange(path, destination) {
      flushFolder(parent)
      removeFolder(path)
      return
    }
    let old = CheckpointFolder.deletedPath(of: destination)
    // Until it is gone, nobody brings it back.
    let oldLock = FolderLock(destination)
    try withExtendedLifetime(oldLock) {
      removeFolder(old)
      guard rename(destination, old) == 0 else {
        throw AtomicFolder.failure(destination, errno)
      }
      guard rename(path, destination) == 0 else {
        let code = errno
        rename(old, destination)
        throw AtomicFolder.failure(destination, code)
      }
      flushFolder(parent)
      removeFolder(old)
    }
  }

  private static func failure(_ destination: String, _ code: Int32) -> CheckpointError {
    if code == ENOTEMPTY || code == EEXIST, let file = folderEntries(destination).first {
      return .folderInUse(folder: destination, file: file)
    }
    errno = code
    return .unwritable(
      file: destination, reason: "\(systemReason()); give a folder that does not exist yet")
  }

  /// Folders as ``init(new:)`` names them, which nobody is filling any more.
  private static func removeUnfinished(_ name: String, in parent: String) {
    let (prefix, suffix) = (".\(name).", ".tmp")
    for entry in folderEntries(parent) where entry.hasPrefix(prefix) && entry.hasSuffix(suffix) {
      let process = entry.dropFirst(prefix.count).dropLast(suffix.count)
      guard Int32(process) != nil, let lock = FolderLock("\(parent)/\(entry)") else { continue }
      withExtendedLifetime(lock) { removeFolder("\(parent)/\(entry)") }
    }
  }
}

/// Gives each of two paths what the other named, at once.
///
/// - Returns: false where the system or the file system cannot, with nothing changed.
private func exchange(_ first: String, _ second: String) -> Bool {
  typealias Call =
    @convention(c) (
      Int32, UnsafePointer<CChar>, Int32, UnsafePointer<CChar>, UInt32
    ) -> Int32
  // The headers give it to programs of GNU extensions alone.
  guard let symbol = dlsym(nil, "renameat2") else { return false }
  let renameExchange: UInt32 = 1 << 1
  return unsafeBitCast(symbol, to: Call.self)(
    AT_FDCWD, first, AT_FDCWD, second, renameExchange) == 0
}
