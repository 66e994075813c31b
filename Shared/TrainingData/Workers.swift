#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A lock and a condition to wait for, for state that several threads share.
final class Monitor: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func locked<Value>(_ body: () throws -> Value) rethrows -> Value {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Inside ``locked(_:)``: waits for ``announce()``.
  func wait() { pthread_cond_wait(condition, mutex) }

  func announce() { pthread_cond_broadcast(condition) }
}

/// Threads for work that blocks or takes long, which would hold up other tasks on the
/// cooperative pool.
enum Workers {
  typealias Start = @Sendable (_ body: @escaping @Sendable () -> Void) throws -> Void

  /// Runs `body` on a thread of its own.
  ///
  /// - Throws: ``TrainingDataError/noThread(reason:)``.
  @Sendable static func start(_ body: @escaping @Sendable () -> Void) throws {
    final class Box: Sendable {
      let body: @Sendable () -> Void
      init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let box = Unmanaged.passRetained(Box(body))
    var thread = pthread_t()
    let status = pthread_create(
      &thread, nil,
      { argument in
        if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
        return nil
      }, box.toOpaque())
    guard status == 0 else {
      box.release()
      throw TrainingDataError.noThread(reason: String(cString: strerror(status)))
    }
    pthread_detach(thread)
  }

  /// Runs `body` for 0..<`count` on some threads, fewer where the machine has no more, and waits
  /// for all.
  ///
  /// - Parameter body: not called any more when the task is cancelled.
  /// - Throws: `CancellationError`; ``TrainingDataError/noThread(reason:)`` when there is not one.
  static func each(
    _ count: Int, workers: Int, start: @escaping Start = Workers.start,
    _ body: @escaping @Sendable (Int) -> Void
  ) async throws {
    guard count > 0 else { return }
    let progress = Progress(count: count, running: min(max(workers, 1), count))
    await withTaskCancellationHandler {
      await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
        for _ in 0..<progress.initiallyRunning {
          do {
            try start {
              while let index = progress.claim() { body(index) }
              if progress.leave() { continuation.resume() }
            }
          } catch {
            // Those that run do the work of those that do not.
            if progress.leave(error) { continuation.resume() }
          }
        }
      }
    } onCancel: {
      progress.stop()
    }
    try Task.checkCancellation()
    if let failure = progress.failure { throw failure }
  }

  private final class Progress: @unchecked Sendable {
    let initiallyRunning: Int
    private let monitor = Monitor()
    private let count: Int
    private var next = 0
    private var running: Int
    private var failures: [any Error] = []

    init(count: Int, running: Int) {
      self.count = count
      self.running = running
      initiallyRunning = running
    }

    func claim() -> Int? {
      monitor.locked {
        guard next < count else { return nil }
        defer { next += 1 }
        return next
      }
    }

    /// Why not one thread ran.
    var failure: (any Error)? {
      monitor.locked { failures.count == initiallyRunning ? failures.first : nil }
    }

    /// Whether the caller was the last.
    ///
    /// - Parameter failure: why the caller never ran.
    func leave(_ failure: (any Error)? = nil) -> Bool {
      monitor.locked {
        if let failure { failures.append(failure) }
        running -= 1
        return running == 0
      }
    }

    func stop() { monitor.locked { next = count } }
  }
}
