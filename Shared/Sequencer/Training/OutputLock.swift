#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The claim of one run on its output folder, held until ``release()`` or the process's end.
///
/// The system lifts it with the process, whatever ended that: a run that is taken up again gets it.
final class OutputLock {
  private static let name = "run.lock"
  /// Bytes that are read of a holder's id.
  private static let limit = 32

  private let path: String
  private var descriptor: Int32

  private init(path: String, descriptor: Int32) {
    self.path = path
    self.descriptor = descriptor
  }

  deinit { release() }

  /// - Throws: ``TrainingRunError/outputTaken(folder:process:)``,
  ///   ``TrainingRunError/unusableFolder(path:reason:)``.
  static func take(_ folder: String) throws -> OutputLock {
    let path = "\(folder)/\(name)"
    while true {
      let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
      guard descriptor >= 0 else {
        throw TrainingRunError.unusableFolder(path: path, reason: String(cString: strerror(errno)))
      }
      let lock = OutputLock(path: path, descriptor: descriptor)
      // File systems that know no such locks count as free.
      while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
        if errno == EINTR { continue }
        guard errno == EWOULDBLOCK else { break }
        let holder = lock.holder
        lock.abandon()
        throw TrainingRunError.outputTaken(folder: folder, process: holder)
      }
      // Its last holder may have removed the file since it was opened.
      var (opened, named) = (stat(), stat())
      guard fstat(descriptor, &opened) == 0, stat(path, &named) == 0,
        opened.st_ino == named.st_ino, opened.st_dev == named.st_dev
      else {
        lock.abandon()
        continue
      }
      // For people alone: a full disk takes nothing from the lock.
      let text = Array("\(getpid())\n".utf8)
      if ftruncate(descriptor, 0) == 0 { _ = pwrite(descriptor, text, text.count, 0) }
      return lock
    }
  }

  /// Gives the folder back.
  func release() {
    guard descriptor >= 0 else { return }
    unlink(path)
    abandon()
  }

  private func abandon() {
    close(descriptor)
    descriptor = -1
  }

  /// The process that wrote its id; nil when it has not yet.
  private var holder: Int? {
    var buffer = [UInt8](repeating: 0, count: OutputLock.limit)
    let count = pread(descriptor, &buffer, buffer.count, 0)
    guard count > 0 else { return nil }
    return Int(String(decoding: buffer[..<count].prefix { $0 != 0x0A }, as: UTF8.self))
  }
}
