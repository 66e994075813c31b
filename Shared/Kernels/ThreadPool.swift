import CPlatform

/// Threads of our own over which an operation spreads its tiles.
///
/// BLAS libraries bring threads that spin while idle, and Swift's cooperative pool must not be
/// blocked; these spin for the pause between two operations, then sleep. The calling thread
/// takes part. Which thread computes a tile is left to chance, so a tile must mean the same
/// whoever computes it.
public final class ThreadPool: @unchecked Sendable {
  /// Threads that take part, the caller among them.
  public let threadCount: Int
  private let pool: OpaquePointer
  /// One for each thread, used only by that thread during a call.
  private let scratches: [Scratch]

  /// Starts `threads` − 1 threads.
  ///
  /// - Parameter pinned: binds each of them to a processor, which keeps two from sharing one;
  ///   only for a process that has the processors to itself.
  /// - Throws: ``KernelError/threadsUnavailable(count:code:)``.
  public init(threads: Int, pinned: Bool = false) throws {
    let count = max(threads, 1)
    var created: OpaquePointer?
    let code = thread_pool_create(count, pinned, &created)
    guard code == 0, let created else {
      throw KernelError.threadsUnavailable(count: count, code: code)
    }
    threadCount = count
    pool = created
    scratches = (0..<count).map { _ in Scratch() }
  }

  deinit { thread_pool_destroy(pool) }

  /// Calls `body` once for each tile 0 ..< `tiles`, and returns when all are done. Calls from
  /// several threads take turns; calls must not nest.
  func parallel(_ tiles: Int, _ body: (_ tile: Int, _ scratch: Scratch) -> Void) {
    precondition(!thread_pool_inside(), "a tile of one operation started another")
    guard tiles > 0 else { return }
    withoutActuallyEscaping(body) { body in
      withExtendedLifetime(self) {
        var job = Job(body: body, scratches: scratches)
        withUnsafeMutablePointer(to: &job) { job in
          thread_pool_run(
            pool, tiles,
            { context, tile, worker in
              guard let job = context?.assumingMemoryBound(to: Job.self) else { return }
              job.pointee.body(tile, job.pointee.scratches[worker])
            }, job)
        }
      }
    }
  }

  private struct Job {
    let body: (Int, Scratch) -> Void
    let scratches: [Scratch]
  }
}

/// Working memory of one thread, kept from one operation to the next.
final class Scratch {
  private var storage: UnsafeMutableRawPointer?
  private var byteCount = 0

  deinit { storage?.deallocate() }

  /// Room for `count` floats of any content, aligned to a cache line, valid until the next call.
  func floats(_ count: Int) -> UnsafeMutablePointer<Float> {
    let needed = max(count, 1) * MemoryLayout<Float>.stride
    if let storage, byteCount >= needed { return storage.assumingMemoryBound(to: Float.self) }
    storage?.deallocate()
    let grown = UnsafeMutableRawPointer.allocate(byteCount: needed, alignment: 64)
    storage = grown
    byteCount = needed
    return grown.assumingMemoryBound(to: Float.self)
  }
}
