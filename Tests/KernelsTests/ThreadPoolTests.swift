import Synchronization
import Testing

@testable import Kernels

@Suite struct ThreadPoolTests {
  @Test("every tile is computed exactly once", arguments: [1, 2, 3, 5, 16], [false, true])
  func everyTile(threads: Int, pinned: Bool) throws {
    let pool = try ThreadPool(threads: threads, pinned: pinned)
    for tiles in [0, 1, 2, 7, 1000] {
      let counts = Counts(tiles)
      for _ in 0..<20 { pool.parallel(tiles) { tile, _ in counts.add(tile) } }
      #expect(counts.values == [Int](repeating: 20, count: tiles))
    }
  }

  @Test("calls from several tasks take turns")
  func concurrentCalls() async throws {
    let pool = try ThreadPool(threads: 3)
    let turns = Turns()
    await withTaskGroup(of: Void.self) { group in
      for caller in 0..<4 {
        group.addTask {
          for _ in 0..<50 {
            let tiles = Counts(1)
            pool.parallel(8) { _, _ in
              turns.enter(caller)
              tiles.add(0)
              if tiles.values == [8] { turns.leave(caller) }
            }
          }
        }
      }
    }
    #expect(turns.overlaps == 0)
  }

  @Test("threads of a pool have scratch memory of their own")
  func scratch() throws {
    let pool = try ThreadPool(threads: 4)
    let spoiled = Mutex(0)
    pool.parallel(400) { tile, scratch in
      let floats = scratch.floats(100 + tile)
      for i in 0..<100 + tile { floats[i] = Float(tile) }
      for i in 0..<100 + tile where floats[i] != Float(tile) { spoiled.withLock { $0 += 1 } }
    }
    #expect(spoiled.withLock { $0 } == 0)
  }

  @Test("pools come and go")
  func churn() throws {
    for _ in 0..<50 {
      let counts = Counts(4)
      let pool = try ThreadPool(threads: 4)
      pool.parallel(4) { tile, _ in counts.add(tile) }
      #expect(counts.values == [1, 1, 1, 1])
    }
  }

  /// Who is inside: from a call's first tile to its last.
  private final class Turns: Sendable {
    private let state = Mutex<(inside: Set<Int>, overlaps: Int)>(([], 0))
    func enter(_ caller: Int) {
      state.withLock { state in
        state.inside.insert(caller)
        if state.inside.count > 1 { state.overlaps += 1 }
      }
    }
    func leave(_ caller: Int) { state.withLock { _ = $0.inside.remove(caller) } }
    var overlaps: Int { state.withLock { $0.overlaps } }
  }

  private final class Counts: Sendable {
    private let counts: Mutex<[Int]>
    init(_ count: Int) { counts = Mutex([Int](repeating: 0, count: count)) }
    func add(_ index: Int) { counts.withLock { $0[index] += 1 } }
    var values: [Int] { counts.withLock { $0 } }
  }
}
