import Dispatch
import Synchronization

/// How fast memory is read: what decoding has for a bound, since a token takes every weight once.
enum BenchMemory {
  /// Bytes a second that `threads` threads read together: the best of some rounds over memory that
  /// no cache holds.
  static func readBandwidth(threads: Int, bytes: Int = 1 << 30, rounds: Int = 5) -> Double {
    typealias Lane = SIMD16<UInt32>
    let share = bytes / threads / (4 * MemoryLayout<Lane>.stride)
    let count = share * threads * 4
    let memory = UnsafeMutablePointer<Lane>.allocate(capacity: count)
    defer { memory.deallocate() }
    memory.initialize(repeating: Lane(repeating: 1), count: count)
    // Handed to threads that each read a part of their own.
    nonisolated(unsafe) let start = UnsafePointer(memory)
    let seen = Atomic<UInt32>(0)
    let clock = ContinuousClock()
    var best = Double.infinity
    for _ in 0..<rounds {
      let took = clock.measure {
        DispatchQueue.concurrentPerform(iterations: threads) { thread in
          let part = start + thread * share * 4
          var (a, b, c, d) = (Lane(), Lane(), Lane(), Lane())
          for index in 0..<share {
            a &+= part[4 * index]
            b &+= part[4 * index + 1]
            c &+= part[4 * index + 2]
            d &+= part[4 * index + 3]
          }
          seen.add((a &+ b &+ c &+ d).wrappedSum(), ordering: .relaxed)
        }
      }
      best = min(best, took / .seconds(1))
    }
    return Double(count * MemoryLayout<Lane>.stride) / best
  }
}
