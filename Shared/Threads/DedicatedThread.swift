#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import CPlatform
import Synchronization

/// A thread that runs closures one after another, in the order they came.
///
/// Work that computes for milliseconds belongs here: on Swift's cooperative pool, which has as
/// many threads as the machine has cores, it would hold up every connection of the process.
public final class DedicatedThread: TaskExecutor {
  private let queue: Queue

  /// - Parameter name: shown by `top -H`; cut to 15 bytes.
  public init(name: String) {
    let queue = Queue()
    self.queue = queue
    let status = wire_thread_start(
      name,
      { context in
        guard let context else { return }
        Unmanaged<Queue>.fromOpaque(context).takeRetainedValue().drain()
      }, Unmanaged.passRetained(queue).toOpaque())
    precondition(status == 0, "a thread could not be started: error \(status)")
  }

  /// Lets the queued work finish, then ends the thread.
  deinit { queue.close() }

  /// Runs `body` on the thread and returns what it returns.
  ///
  /// A task that is cancelled before its turn throws `CancellationError` without running;
  /// afterwards it is up to `body` to ask the flag it is given.
  public func run<Result: Sendable>(
    _ body: @escaping @Sendable (CancellationFlag) throws -> Result
  ) async throws -> Result {
    let flag = CancellationFlag()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        queue.append {
          continuation.resume(
            with: Swift.Result {
              if flag.isCancelled { throw CancellationError() }
              return try body(flag)
            })
        }
      }
    } onCancel: {
      flag.cancel()
    }
  }

  /// As ``run(_:)``, for a body that may block for as long as it likes, such as reading from a
  /// person: a task that is cancelled throws `CancellationError` at once and leaves the body to
  /// itself.
  public func runAbandonably<Result: Sendable>(
    _ body: @escaping @Sendable (CancellationFlag) throws -> Result
  ) async throws -> Result {
    let flag = CancellationFlag()
    let answer = Answer<Result>()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        answer.expect(continuation)
        queue.append {
          answer.give(
            Swift.Result {
              if flag.isCancelled { throw CancellationError() }
              return try body(flag)
            })
        }
      }
    } onCancel: {
      flag.cancel()
      answer.give(.failure(CancellationError()))
    }
  }

  /// Runs the parts of tasks that prefer this thread.
  public func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    queue.append { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }

  /// Closures that wait for their turn.
  public var waiting: Int { queue.count }
}

/// Says to work on another thread that nobody waits for its result any more.
public final class CancellationFlag: Sendable {
  private let flag = Atomic<Bool>(false)

  public init() {}

  public var isCancelled: Bool { flag.load(ordering: .relaxed) }
  public func cancel() { flag.store(true, ordering: .relaxed) }
}

/// The first of two answers to one who waits, whichever comes first, even before the waiting.
private final class Answer<Value: Sendable>: Sendable {
  private enum State {
    case open
    case expected(CheckedContinuation<Value, any Error>)
    case given(Result<Value, any Error>)
    case over
  }

  private let state = Mutex(State.open)

  func expect(_ continuation: CheckedContinuation<Value, any Error>) {
    let early: Result<Value, any Error>? = state.withLock { state in
      if case .given(let result) = state {
        state = .over
        return result
      }
      state = .expected(continuation)
      return nil
    }
    if let early { continuation.resume(with: early) }
  }

  func give(_ result: Result<Value, any Error>) {
    let continuation: CheckedContinuation<Value, any Error>? = state.withLock { state in
      switch state {
      case .open:
        state = .given(result)
        return nil
      case .expected(let continuation):
        state = .over
        return continuation
      case .given, .over: return nil
      }
    }
    continuation?.resume(with: result)
  }
}

/// The closures of one thread, behind a lock and a condition.
private final class Queue: @unchecked Sendable {
  private let lock: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private var closures: [@Sendable () -> Void] = []
  private var isClosed = false
  /// Whether there is something to do, for a look without the lock.
  private let hasNews = Atomic<Bool>(false)

  init() {
    lock = .allocate(capacity: 1)
    condition = .allocate(capacity: 1)
    pthread_mutex_init(lock, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(lock)
    condition.deallocate()
    lock.deallocate()
  }

  var count: Int {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    return closures.count
  }

  func append(_ closure: @escaping @Sendable () -> Void) {
    pthread_mutex_lock(lock)
    closures.append(closure)
    hasNews.store(true, ordering: .relaxed)
    pthread_cond_signal(condition)
    pthread_mutex_unlock(lock)
  }

  func close() {
    pthread_mutex_lock(lock)
    isClosed = true
    hasNews.store(true, ordering: .relaxed)
    pthread_cond_signal(condition)
    pthread_mutex_unlock(lock)
  }

  func drain() {
    var pause = Pause()
    while true {
      _ = pause.look { hasNews.load(ordering: .relaxed) ? () : nil }
      pthread_mutex_lock(lock)
      if closures.isEmpty && !isClosed {
        pause.sleep {
          while closures.isEmpty && !isClosed { pthread_cond_wait(condition, lock) }
        }
      }
      let next = closures.isEmpty ? nil : closures.removeFirst()
      if closures.isEmpty { hasNews.store(isClosed, ordering: .relaxed) }
      pthread_mutex_unlock(lock)
      guard let next else { return }
      next()
    }
  }
}
