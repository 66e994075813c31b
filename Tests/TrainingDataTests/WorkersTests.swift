import Synchronization
import Support
import Testing

@testable import TrainingData

@Suite struct WorkersTests {
  /// Starts so many threads, and no more.
  private static func starting(_ count: Int) -> Workers.Start {
    let left = Mutex(count)
    return { body in
      let isAllowed = left.withLock { left in
        left -= 1
        return left >= 0
      }
      guard isAllowed else { throw TrainingDataError.noThread(reason: "there are too many") }
      try Workers.start(body)
    }
  }

  @Test(arguments: [1, 2, 5]) func `those threads that start do all`(_ threads: Int) async throws {
    let done = Mutex<Set<Int>>([])
    try await Workers.each(40, workers: 5, start: WorkersTests.starting(threads)) { index in
      done.withLock { _ = $0.insert(index) }
    }
    #expect(done.withLock { $0 } == Set(0..<40))
  }

  @Test func `a stream is read by those threads that start`() async throws {
    func stream(_ threads: Int) -> SampleStream<Int> {
      SampleStream(
        [3, 1, 2], workers: 3, window: 1, start: WorkersTests.starting(threads)
      ) { index, _ in index }
    }
    var found: [Int] = []
    for try await index in stream(1) { found.append(index) }
    #expect(found == [3, 1, 2])
    await #expect(throws: TrainingDataError.noThread(reason: "there are too many")) {
      try await stream(0).next()
    }
  }

  @Test func `no thread at all is an error`() async {
    await #expect(throws: TrainingDataError.noThread(reason: "there are too many")) {
      try await Workers.each(40, workers: 5, start: WorkersTests.starting(0)) { _ in
        Issue.record("something ran")
      }
    }
  }
}
