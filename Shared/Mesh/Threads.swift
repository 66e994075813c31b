import CPlatform
import Glibc

/// Threads for work that blocks, which Swift's own must not.
enum Threads {
  private final class Work {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }

  /// Runs `body` on a detached thread; on the caller's when the system gives no more threads.
  static func start(name: String, _ body: @escaping @Sendable () -> Void) {
    let work = Unmanaged.passRetained(Work(name: name, body: body))
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 1 << 19)
    var thread = pthread_t()
    let result = pthread_create(
      &thread, &attributes,
      { context in
        guard let context else { return nil }
        let work = Unmanaged<Work>.fromOpaque(context).takeRetainedValue()
        chiasm_thread_prepare(work.name)
        work.body()
        return nil
      }, work.toOpaque())
    if result != 0 {
      work.takeRetainedValue().body()
    }
  }
}
