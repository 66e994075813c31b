#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import Checkpoint
import Training

/// A run's folder besides its checkpoints: what is logged of each step, once.
///
/// `train_log.jsonl` has a line a step. When a run goes back to an earlier step, the lines of
/// later ones are taken out.
final class RunFolder {
  let path: String
  private var descriptor: Int32 = -1
  private var board: TensorBoardWriter?
  private var lock: OutputLock?
  /// Folders that were not there before, outermost first.
  private var made: [String] = []

  static let logName = "train_log.jsonl"
  /// Bytes of a log that are read to take lines out of it.
  private static let logLimit = 1 << 30

  /// Makes the folder where there is none.
  ///
  /// - Throws: ``TrainingRunError/unusableFolder(path:reason:)``.
  init(_ path: String) throws {
    self.path = path
    var folder = path.hasPrefix("/") ? "" : "."
    for part in path.split(separator: "/") {
      folder += "/" + part
      if mkdir(folder, 0o755) == 0 {
        made.append(folder)
      } else if errno != EEXIST {
        let failure = failure(path)
        removeIfEmpty()
        throw failure
      }
    }
    var info = stat()
    guard stat(path, &info) == 0 else { throw failure(path) }
    guard info.st_mode & S_IFMT == S_IFDIR else {
      throw TrainingRunError.unusableFolder(path: path, reason: "it is a file, not a folder")
    }
    guard access(path, W_OK | X_OK) == 0 else { throw failure(path) }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Keeps other runs out of the folder until ``release()``.
  ///
  /// - Throws: ``TrainingRunError/outputTaken(folder:process:)``,
  ///   ``TrainingRunError/unusableFolder(path:reason:)``.
  func take() throws { lock = try OutputLock.take(path) }

  /// Lets others in; nothing is left of a folder that was made for nothing.
  func release() {
    lock?.release()
    lock = nil
    removeIfEmpty()
  }

  private func removeIfEmpty() {
    for folder in made.reversed() where rmdir(folder) != 0 { break }
    made = []
  }

  /// - Throws: ``TrainingRunError/unusableFolder(path:reason:)`` when no such file can be written.
  static func requireWritable(_ path: String) throws {
    var info = stat()
    if stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR {
      throw TrainingRunError.unusableFolder(path: path, reason: "it is a folder, not a file")
    }
    let parent = path.lastIndex(of: "/").map { String(path[..<$0]) + "/" } ?? "."
    guard access(parent, W_OK | X_OK) == 0 else { throw failure(path) }
  }

  var logPath: String { "\(path)/\(RunFolder.logName)" }

  /// Leaves the lines of the first `step` steps in the log, each once, and appends from then on.
  ///
  /// - Throws: ``TrainingRunError/unusableFolder(path:reason:)``.
  func rewind(to step: Int) throws {
    if descriptor >= 0 { close(descriptor) }
    descriptor = -1
    var kept: [(step: Int, text: String)] = []
    for line in lines() where line.step <= step && line.step > (kept.last?.step ?? 0) {
      kept.append(line)
    }
    let bytes = kept.flatMap { line in [UInt8](line.text.utf8) + [UInt8(0x0A)] }
    try RunFolder.replace(logPath, with: bytes)
    descriptor = open(logPath, O_WRONLY | O_APPEND | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure(logPath) }
    try rewindBoard(kept.map(\.text))
  }

  /// - Throws: ``TrainingRunError/unusableFolder(path:reason:)``; `CheckpointError.diskFull` and
  ///   `TrainingError.diskFull`, with nothing of the line written.
  func append(_ log: TrainingLog) throws {
    // The disk was full when the log was to be rewound.
    guard descriptor >= 0 else { return }
    let end = lseek(descriptor, 0, SEEK_END)
    do {
      try write(Array(log.line.utf8) + [0x0A], to: descriptor, logPath)
    } catch {
      if end >= 0 { ftruncate(descriptor, end) }
      throw error
    }
    try board?.write(log)
  }

  /// Makes an empty file that others can look for.
  ///
  /// - Returns: its path; nil where the disk is full.
  static func makeMark(in folder: String) throws -> String? {
    let path = "\(folder)/.shared-\(String(UInt64.random(in: .min ... .max), radix: 16))"
    let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      let failure = failure(path)
      if failure.isDiskFull { return nil }
      throw failure
    }
    close(file)
    return path
  }

  static func removeMark(_ path: String) { unlink(path) }

  /// Event files cannot be cut: a new one takes the place of those there are.
  private func rewindBoard(_ lines: [String]) throws {
    board = nil
    let runs = "\(path)/runs"
    for name in folderEntries(runs) where name.hasPrefix("events.out.tfevents.") {
      unlink("\(runs)/\(name)")
    }
    let board = try TensorBoardWriter(directory: runs)
    for line in lines { try board.write(TrainingLog(line: line)) }
    self.board = board
  }

  /// The log's whole lines; a torn last one is left out.
  private func lines() -> [(step: Int, text: String)] {
    let file = open(logPath, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return [] }
    defer { close(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count < RunFolder.logLimit {
      let count = read(file, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    return bytes.split(separator: 0x0A).compactMap { line in
      let text = String(decoding: line, as: UTF8.self)
      return (try? TrainingLog(line: text)).map { ($0.step, text) }
    }
  }

  private func write(_ bytes: [UInt8], to file: Int32, _ path: String) throws {
    try RunFolder.write(bytes, to: file, path)
  }

  private func failure(_ path: String) -> any Error { RunFolder.failure(path) }

  private static func write(_ bytes: [UInt8], to file: Int32, _ path: String) throws {
    var written = 0
    while written < bytes.count {
      let count = bytes[written...].withUnsafeBytes {
        Glibc.write(file, $0.baseAddress, $0.count)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw failure(path, byteCount: bytes.count) }
      written += count
    }
  }

  private static func failure(_ path: String, byteCount: Int = 0) -> any Error {
    errno == ENOSPC || errno == EDQUOT
      ? CheckpointError.diskFull(file: path, byteCount: byteCount)
      : TrainingRunError.unusableFolder(path: path, reason: String(cString: strerror(errno)))
  }

  /// Writes a file that appears whole.
  ///
  /// - Throws: ``TrainingRunError/unusableFolder(path:reason:)``.
  static func replace(_ path: String, with bytes: [UInt8]) throws {
    let temporary = "\(path).tmp"
    let file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw failure(temporary) }
    defer { close(file) }
    try write(bytes, to: file, temporary)
    guard fsync(file) == 0, rename(temporary, path) == 0 else { throw failure(path) }
  }
}

/// Checkpoints after every step, in memory that outlives the processes of a mesh.
enum ReplicaFolder {
  /// Of the run that writes to `output`; of this user alone.
  ///
  /// - Throws: ``TrainingRunError/unusableFolder(path:reason:)``.
  static func path(for output: String) throws -> String {
    let absolute = RealPath.of(output) ?? output
    let root = "/dev/shm/chiasm-\(geteuid())"
    let path = "\(root)/\(Digest.sha256(Array(absolute.utf8)).prefix(16))"
    for folder in [root, path] {
      if mkdir(folder, 0o700) != 0, errno != EEXIST {
        throw TrainingRunError.unusableFolder(
          path: folder, reason: String(cString: strerror(errno)))
      }
      var info = stat()
      guard lstat(folder, &info) == 0, info.st_mode & S_IFMT == S_IFDIR,
        info.st_uid == geteuid(), info.st_mode & 0o077 == 0
      else {
        throw TrainingRunError.unusableFolder(
          path: folder, reason: "it is not a folder of this user alone")
      }
    }
    return path
  }
}

enum RealPath {
  /// Without links and dots; nil where there is nothing.
  static func of(_ path: String) -> String? {
    var resolved = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    guard realpath(path, &resolved) != nil else { return nil }
    return String(decoding: resolved.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
