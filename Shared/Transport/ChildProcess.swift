import CPlatform

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The end of a command that a connection ran.
enum ChildProcess {
  /// Waits for the process, whose input has ended; asks it to end, then makes it. Blocks.
  static func end(_ process: pid_t) {
    for (patience, signal) in [(1000, SIGTERM), (2000, SIGKILL)] {
      if hasEnded(process, within: patience) { return }
      kill(process, signal)
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
  }

  private static func hasEnded(_ process: pid_t, within milliseconds: Int) -> Bool {
    let watch = wire_process_watch(process)
    if watch >= 0 {
      let descriptor = Descriptor(watch)
      var entry = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
      _ = poll(&entry, 1, Int32(milliseconds))
      return isReaped(process)
    }
    for _ in 0..<max(milliseconds / 10, 1) {
      if isReaped(process) { return true }
      usleep(10_000)
    }
    return isReaped(process)
  }

  private static func isReaped(_ process: pid_t) -> Bool {
    var status: Int32 = 0
    return waitpid(process, &status, WNOHANG) != 0
  }
}
