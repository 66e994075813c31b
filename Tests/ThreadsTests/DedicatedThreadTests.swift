import Synchronization
import Testing
import Threads

@Suite struct DedicatedThreadTests {
  private struct Broken: Error {}

  @Test("closures run one after another, in the order they came")
  func order() async throws {
    let thread = DedicatedThread(name: "test")
    let seen = Seen()
    let running = CancellationFlag()
    let release = CancellationFlag()
    // Everything else is queued while this one is at work.
    let holder = Task {
      try await thread.run { _ in
        running.cancel()
        while !release.isCancelled {}
      }
    }
    while !running.isCancelled { await Task.yield() }
    var tasks: [Task<Void, any Error>] = []
    for index in 0..<100 {
      tasks.append(Task { try await thread.run { _ in seen.append(index) } })
      // One by one, so that the order of asking is certain.
      while thread.waiting <= index { await Task.yield() }
    }
    release.cancel()
    try await holder.value
    for task in tasks { try await task.value }
    #expect(seen.all == Array(0..<100))
  }

  @Test("an error reaches the one who asked, and the thread goes on")
  func failing() async throws {
    let thread = DedicatedThread(name: "test")
    await #expect(throws: Broken.self) {
      try await thread.run { _ -> Int in throw Broken() }
    }
    #expect(try await thread.run { _ in 7 } == 7)
  }

  @Test("work that is cancelled before its turn does not run")
  func cancelledBefore() async throws {
    let thread = DedicatedThread(name: "test")
    let seen = Seen()
    let release = CancellationFlag()
    let holder = Task { try await thread.run { _ in while !release.isCancelled {} } }
    let second = Task { try await thread.run { _ in seen.append(1) } }
    second.cancel()
    release.cancel()
    await #expect(throws: CancellationError.self) { try await second.value }
    try await holder.value
    #expect(seen.all.isEmpty)
  }

  @Test("work under way sees that nobody waits any more")
  func cancelledDuring() async throws {
    let thread = DedicatedThread(name: "test")
    let running = CancellationFlag()
    let task = Task {
      try await thread.run { flag -> Bool in
        running.cancel()
        while !flag.isCancelled {}
        return true
      }
    }
    while !running.isCancelled { await Task.yield() }
    task.cancel()
    #expect(try await task.value)
  }

  private final class Seen: Sendable {
    private let values = Mutex<[Int]>([])

    var all: [Int] { values.withLock { $0 } }
    func append(_ value: Int) { values.withLock { $0.append(value) } }
  }
}
