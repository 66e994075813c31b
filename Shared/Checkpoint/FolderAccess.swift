#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Makes a folder and those it lies in, where they do not exist, and has their names on disk.
///
/// - Throws: ``CheckpointError/unwritable(file:reason:)``, ``CheckpointError/notAFolder(_:)``,
///   ``CheckpointError/diskFull(file:byteCount:)``.
func makeFolders(_ folder: String) throws {
  var path = ""
  for part in folder.split(separator: "/", omittingEmptySubsequences: false) {
    path += path.isEmpty && !part.isEmpty && !folder.hasPrefix("/") ? "\(part)" : "/\(part)"
    if !part.isEmpty { try makeFolder(path) }
  }
  try requireFolder(folder)
}

/// Makes a folder in one that exists, where there is none, and has its name on disk.
///
/// - Throws: ``CheckpointError/unwritable(file:reason:)``,
///   ``CheckpointError/diskFull(file:byteCount:)``.
func makeFolder(_ path: String) throws {
  if mkdir(path, 0o755) == 0 {
    flushFolder(parentFolder(of: path))
    return
  }
  let code = errno
  // A folder may be there and its parent closed to us, or on a disk that is only read.
  if isFolder(path) { return }
  errno = code
  throw isFull(code)
    ? CheckpointError.diskFull(file: path, byteCount: 0)
    : CheckpointError.unwritable(file: path, reason: systemReason())
}

/// Makes a folder for a new model, unless one is in it.
///
/// - Throws: ``CheckpointError/folderInUse(folder:file:)`` and what ``makeFolders(_:)`` throws.
func prepareModelFolder(_ folder: String) throws {
  try makeFolders(folder)
  let file = folderEntries(folder).first {
    $0.hasSuffix(".safetensors") || $0 == "config.json" || $0 == CheckpointReader.indexName
  }
  if let file { throw CheckpointError.folderInUse(folder: folder, file: file) }
}

/// Removes a folder with all it holds, as far as that can be done. Links are not followed.
public func removeFolder(_ path: String) {
  for name in folderEntries(path) {
    let entry = "\(path)/\(name)"
    var status = stat()
    guard lstat(entry, &status) == 0 else { continue }
    if status.st_mode & S_IFMT == S_IFDIR { removeFolder(entry) } else { unlink(entry) }
  }
  rmdir(path)
}

func removeFile(_ path: String) { unlink(path) }

/// A rename is on disk when its folder is.
func flushFolder(_ path: String) {
  let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  guard descriptor >= 0 else { return }
  fsync(descriptor)
  close(descriptor)
}

/// The folder that a path lies in.
func parentFolder(of path: String) -> String {
  guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

func withoutTrailingSlashes(_ path: String) -> String {
  var path = path
  while path.count > 1, path.hasSuffix("/") { path.removeLast() }
  return path
}

/// Bytes that may still be written to the file system of a folder; nil when it does not say.
func freeBytes(in folder: String) -> Int? {
  var space = statvfs()
  guard statvfs(folder, &space) == 0 else { return nil }
  let free = UInt64(space.f_bavail).multipliedReportingOverflow(by: UInt64(space.f_frsize))
  return free.overflow || free.partialValue > UInt64(Int.max) ? Int.max : Int(free.partialValue)
}

/// A lock on a folder, held until the value's end or the process's: which of its users is at work
/// there. File systems that know no such locks count as free.
final class FolderLock: Sendable {
  private let descriptor: Int32

  /// - Returns: nil when somebody else holds the lock, or the folder is gone.
  init?(_ folder: String) {
    descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    if flock(descriptor, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK { return nil }
    // It may have been removed, and made anew by another, since it was opened.
    var (mine, named) = (stat(), stat())
    guard fstat(descriptor, &mine) == 0, stat(folder, &named) == 0, mine.st_ino == named.st_ino,
      mine.st_dev == named.st_dev
    else { return nil }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }
}
