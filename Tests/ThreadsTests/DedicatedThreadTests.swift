import Synchronization
import Testing
import Threads

@Suite struct DedicatedThreadTests {
  private struct Broken: Error {}

  @Test("closures run one after another, in the order they came")
  func order() async throws {
    let thread = DedicatedThread(name: "test")
    let seen = Mutex<[Int]>([])
    let hold = Atomic<Bool>(true)
    let running = Atomic<Bool>(false)
    try await withThrowingTaskGroup(of: Void.self) { group in
      // Everything else is queued while this one is at work.
      group.addTask {
        try await thread.run { _ in
          running.store(true, ordering: .releasing)
          while hold.load(ordering: .acquiring) {}
        }
      }
      while !running.load(ordering: .acquiring) { await Task.yield() }
      for index in 0..<100 {
        let task = Task { try await thread.run { _ in seen.withLock { $0.append(index) } } }
        // One by one, so that the order of asking is certain.
        while thread.waiting <= index { await Task.yield() }
        group.addTask { try await task.value }
      }
      hold.store(false, ordering: .releasing)
      try await group.waitForAll()
    }
    #expect(seen.withLock { $0 } == Array(0..<100))
  }

  @Test("an error reaches the one who asked, and the thread goes on")
  func errors() async throws {
    let thread = DedicatedThread(name: "test")
    await #expect(throws: Broken.self) {
      try await thread.run { _ -> Int in throw Broken() }
    }
    #expect(try await thread.run { _ in 7 } == 7)
  }

  @Test("work that is cancelled before its turn does not run")
  func cancelledBefore() async throws {
    let thread = DedicatedThread(name: "test")
    let started = Mutex(false)
    let hold = Atomic<Bool>(true)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        try await thread.run { _ in while hold.load(ordering: .acquiring) {} }
      }
      let second = Task { try await thread.run { _ in started.withLock { $0 = true } } }
      second.cancel()
      hold.store(false, ordering: .releasing)
      await #expect(throws: CancellationError.self) { try await second.value }
      try await group.waitForAll()
    }
    #expect(!started.withLock { $0 })
  }

  @Test("work under way sees that nobody waits any more")
  func cancelledDuring() async throws {
    let thread = DedicatedThread(name: "test")
    let running = Atomic<Bool>(false)
    let task = Task {
      try await thread.run { flag -> Bool in
        running.store(true, ordering: .releasing)
        while !flag.isCancelled {}
        return true
      }
    }
    while !running.load(ordering: .acquiring) { await Task.yield() }
    task.cancel()
    #expect(try await task.value)
  }
}
