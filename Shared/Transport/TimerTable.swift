import Synchronization

/// What has to happen at which moment; worked off by a connection's thread.
///
/// The thread sleeps until the earliest moment it knew of when it went to sleep. An entry that
/// is due later needs no waking, and removed entries cost at most one early waking, so that a
/// call that ends in time never wakes the thread for its deadline.
final class TimerTable: Sendable {
  private struct State {
    var entries: [UInt64: (deadline: Deadline, action: @Sendable () -> Void)] = [:]
    var next: UInt64 = 0
    /// When the thread will look again; nil: it has to look now.
    var armed: Deadline?
  }
  private let state = Mutex(State())

  /// - Returns: the entry's number, and whether the thread must be woken to heed it.
  func add(_ deadline: Deadline, _ action: @escaping @Sendable () -> Void) -> (UInt64, Bool) {
    state.withLock {
      $0.next += 1
      $0.entries[$0.next] = (deadline, action)
      if let armed = $0.armed, deadline >= armed { return ($0.next, false) }
      $0.armed = nil
      return ($0.next, true)
    }
  }

  func remove(_ entry: UInt64?) {
    guard let entry else { return }
    // The action may hold the last reference to something: let it go outside the lock.
    _ = state.withLock { $0.entries.removeValue(forKey: entry) }
  }

  /// Runs what is due.
  /// - Returns: when to call again.
  func fire() -> Deadline? {
    let now = Deadline(ContinuousClock.now)
    let (due, next): ([@Sendable () -> Void], Deadline?) = state.withLock { state in
      if let armed = state.armed, now < armed { return ([], armed) }
      var due: [@Sendable () -> Void] = []
      var next: Deadline?
      for (key, entry) in state.entries {
        if entry.deadline <= now {
          due.append(entry.action)
          state.entries[key] = nil
        } else {
          next = next.map { min($0, entry.deadline) } ?? entry.deadline
        }
      }
      state.armed = next
      return (due, next)
    }
    for action in due { action() }
    return next
  }

  func removeAll() {
    _ = state.withLock { state in
      defer { state.entries = [:] }
      return state.entries
    }
  }
}
