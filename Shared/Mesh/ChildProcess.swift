import CPlatform
import Glibc
import Synchronization

/// A program run in a process group of its own, watched by a thread that reads its output, ends
/// it in time, and collects its exit.
final class ChildProcess: Sendable {
  enum Stream: Sendable { case output, error }

  struct Command: Sendable {
    /// Path of the executable.
    var program: String
    /// With the program's name as the first.
    var arguments: [String]
    var environment: [String: String]
    var directory: String?
    /// Leaves standard input and output to the caller: see ``ChildProcess/standardStreams``.
    var usesStandardStreams = false
    /// Time after which the process is killed.
    var timeLimit: Duration?
  }

  enum StartError: Error, CustomStringConvertible {
    case directory(String, Int32)
    case execute(Int32)
    case system(String, Int32)

    var description: String {
      switch self {
      case .directory(let path, let code):
        "its working directory \(path): \(SystemReason.text(code))"
      case .execute(let code): SystemReason.text(code)
      case .system(let operation, let code): "\(operation): \(SystemReason.text(code))"
      }
    }
  }

  let pid: pid_t
  /// Writing end of its input and reading end of its output; the caller closes them.
  let standardStreams: (input: Int32, output: Int32)?

  private struct State {
    var exit: ExitStatus?
    /// When the group is sent SIGKILL.
    var deadline: ContinuousClock.Instant?
    var isReaped = false
    var waiters: [CheckedContinuation<ExitStatus, Never>] = []
  }

  private let state = Mutex(State())
  private let guardPipe: Int32
  /// An eventfd that wakes the thread when the deadline has changed.
  private let wake: Int32

  private init(
    pid: pid_t, standardStreams: (input: Int32, output: Int32)?, guardPipe: Int32, wake: Int32
  ) {
    self.pid = pid
    self.standardStreams = standardStreams
    self.guardPipe = guardPipe
    self.wake = wake
  }

  deinit { close(wake) }

  /// - Parameters:
  ///   - guardPipe: as from `chiasm_guard_start`, or -1.
  ///   - onLine: called on the watching thread, never again once ``exit()`` has returned.
  /// - Throws: ``StartError``.
  static func start(
    _ command: Command, guardPipe: Int32,
    onLine: @escaping @Sendable (Stream, String) -> Void
  ) throws(StartError) -> ChildProcess {
    var owned = Descriptors()
    defer { owned.closeAll() }
    let wake = chiasm_process_wake()
    guard wake >= 0 else { throw .system("eventfd", -wake) }
    owned.add(wake)
    let error = try owned.pipe()
    let output = try owned.pipe()
    let input: (reading: Int32, writing: Int32)? =
      command.usesStandardStreams ? try owned.pipe() : nil

    var step: Int32 = 0
    let pid = withCStrings(command.arguments) { arguments in
      withCStrings(command.environment.map { "\($0)=\($1)" }.sorted()) { environment in
        command.program.withCString { program in
          withOptionalCString(command.directory) { directory in
            var spawn = chiasm_spawn(
              program: program, arguments: arguments, environment: environment,
              directory: directory, input: input?.reading ?? -1, output: output.writing,
              error: error.writing, guard: guardPipe)
            return chiasm_process_spawn(&spawn, &step)
          }
        }
      }
    }
    guard pid > 0 else {
      switch UInt32(step) {
      case CHIASM_SPAWN_DIRECTORY.rawValue: throw .directory(command.directory ?? ".", -pid)
      case CHIASM_SPAWN_EXEC.rawValue: throw .execute(-pid)
      case CHIASM_SPAWN_GUARD.rawValue: throw .system("telling the guard", -pid)
      default: throw .system("fork", -pid)
      }
    }
    owned.keep(wake)
    owned.keep(error.reading)
    owned.keep(output.reading)
    if let input { owned.keep(input.writing) }

    let child = ChildProcess(
      pid: pid, standardStreams: input.map { ($0.writing, output.reading) },
      guardPipe: guardPipe, wake: wake)
    if let limit = command.timeLimit {
      child.state.withLock { $0.deadline = .now + limit }
    }
    let descriptor = chiasm_process_descriptor(pid)
    let captured = command.usesStandardStreams ? -1 : output.reading
    Threads.start(name: "child \(pid)") {
      child.watch(process: descriptor, output: captured, error: error.reading, onLine)
    }
    return child
  }

  /// Waits for the process to end, not for cancellation: cancel with ``terminate(grace:)``.
  func exit() async -> ExitStatus {
    await withCheckedContinuation { continuation in
      let done = state.withLock { state -> ExitStatus? in
        if state.exit == nil { state.waiters.append(continuation) }
        return state.exit
      }
      if let done { continuation.resume(returning: done) }
    }
  }

  /// Sends the group SIGTERM, and SIGKILL if its leader still runs after `grace`.
  func terminate(grace: Duration) {
    state.withLock { state in
      guard !state.isReaped else { return }
      kill(-pid, SIGTERM)
      // A stopped process would sleep through its SIGTERM.
      kill(-pid, SIGCONT)
      let deadline = ContinuousClock.now + grace
      state.deadline = min(state.deadline ?? deadline, deadline)
    }
    var one: UInt64 = 1
    _ = write(wake, &one, MemoryLayout.size(ofValue: one))
  }

  // MARK: The watching thread

  private func watch(
    process: Int32, output: Int32, error: Int32, _ onLine: (Stream, String) -> Void
  ) {
    var readers = [
      Reader(descriptor: output, stream: .output), Reader(descriptor: error, stream: .error),
    ]
    for reader in readers where reader.descriptor >= 0 {
      _ = fcntl(reader.descriptor, F_SETFL, fcntl(reader.descriptor, F_GETFL) | O_NONBLOCK)
    }
    var code: Int32 = 0
    var signal: Int32 = 0
    while true {
      var polled = [wake, process, readers[0].descriptor, readers[1].descriptor].map {
        pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
      }
      poll(&polled, nfds_t(polled.count), timeout(hasDescriptor: process >= 0))
      for index in readers.indices where polled[2 + index].revents != 0 {
        // One chunk a round: a chatty process must not hold up the deadline.
        _ = readers[index].readChunk(onLine)
      }
      if polled[0].revents != 0 {
        var count: UInt64 = 0
        _ = read(wake, &count, MemoryLayout.size(ofValue: count))
      }
      killIfOverdue()
      if chiasm_process_wait(pid, 0, &code, &signal) != 0 { break }
    }
    // Its id is still taken, so the group cannot be somebody else's yet.
    state.withLock { state in
      kill(-pid, SIGKILL)
      chiasm_guard_forget(guardPipe, pid)
      chiasm_process_reap(pid)
      state.isReaped = true
    }
    for index in readers.indices {
      readers[index].drain(onLine)
    }
    if process >= 0 { close(process) }
    let status: ExitStatus = signal == 0 ? .code(Int(code)) : .signal(Int(signal))
    let waiters = state.withLock { state in
      state.exit = status
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.resume(returning: status) }
  }

  /// Milliseconds until there is something to do besides reading; -1: nothing.
  private func timeout(hasDescriptor: Bool) -> Int32 {
    // Kernels before 5.3 have no process descriptors: look often instead.
    let longest: Int32 = hasDescriptor ? -1 : 20
    guard let deadline = state.withLock({ $0.deadline }) else { return longest }
    let left = ContinuousClock.now.duration(to: deadline) / .milliseconds(1)
    let milliseconds = Int32(min(max(left.rounded(.up), 0), 60_000))
    return longest < 0 ? milliseconds : min(longest, milliseconds)
  }

  private func killIfOverdue() {
    state.withLock { state in
      guard let deadline = state.deadline, deadline <= .now else { return }
      kill(-pid, SIGKILL)
      state.deadline = nil
    }
  }

  private struct Reader {
    var descriptor: Int32
    let stream: Stream
    private var splitter = LineSplitter()

    init(descriptor: Int32, stream: Stream) {
      self.descriptor = descriptor
      self.stream = stream
    }

    /// Whether there may be more.
    mutating func readChunk(_ onLine: (Stream, String) -> Void) -> Bool {
      guard descriptor >= 0 else { return false }
      let stream = stream
      return withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 1) { buffer in
        let count = read(descriptor, buffer.baseAddress, buffer.count)
        if count > 0 {
          splitter.feed(buffer[..<count]) { onLine(stream, $0) }
          return true
        }
        if count < 0, errno == EINTR { return true }
        if count < 0, errno == EAGAIN { return false }
        finish(onLine)
        return false
      }
    }

    /// Reads what the dead process left behind. Bounded: an escaped grandchild may still write.
    mutating func drain(_ onLine: (Stream, String) -> Void) {
      for _ in 0..<256 {
        guard readChunk(onLine) else { break }
      }
      finish(onLine)
    }

    private mutating func finish(_ onLine: (Stream, String) -> Void) {
      guard descriptor >= 0 else { return }
      splitter.finish { onLine(stream, $0) }
      close(descriptor)
      descriptor = -1
    }
  }
}

/// Descriptors that are closed unless somebody keeps them.
private struct Descriptors {
  private var owned: [Int32] = []

  mutating func add(_ descriptor: Int32) { owned.append(descriptor) }
  mutating func keep(_ descriptor: Int32) { owned.removeAll { $0 == descriptor } }

  mutating func pipe() throws(ChildProcess.StartError) -> (reading: Int32, writing: Int32) {
    var ends: [Int32] = [-1, -1]
    let result = chiasm_process_pipe(&ends)
    guard result == 0 else { throw .system("pipe", -result) }
    owned += ends
    return (ends[0], ends[1])
  }

  mutating func closeAll() {
    for descriptor in owned { close(descriptor) }
    owned = []
  }
}

private func withCStrings<Result>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
  defer { for pointer in pointers { free(pointer) } }
  pointers.append(nil)
  return pointers.withUnsafeBufferPointer { buffer in
    // The array ends with nil, so it has a first element.
    guard let base = buffer.baseAddress else { preconditionFailure("an empty argument list") }
    return body(base)
  }
}

private func withOptionalCString<Result>(
  _ string: String?, _ body: (UnsafePointer<CChar>?) -> Result
) -> Result {
  guard let string else { return body(nil) }
  return string.withCString { body($0) }
}
