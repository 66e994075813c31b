import Messages
import Synchronization
import Testing
import Transport

struct NotInTime: Error, CustomStringConvertible {
  let what: String
  var description: String { "it did not come about in time that \(what)" }
}

/// Waits until a condition holds that something else brings about.
func eventually(_ what: String, _ condition: () async throws -> Bool) async throws {
  let deadline = Deadline.after(.seconds(30))
  while try await !condition() {
    guard !deadline.isPassed else { throw NotInTime(what: what) }
    try await Task.sleep(for: .milliseconds(3))
  }
}

/// The status with which something fails; nil when it does not.
func status(_ body: () async throws -> Void) async -> RPCError? {
  do {
    try await body()
    return nil
  } catch {
    return error as? RPCError ?? RPCError(.unknown, "not a status: \(error)")
  }
}

/// How often something happened, counted from several tasks.
final class Counter: Sendable {
  private let count = Mutex(0)
  func add() { count.withLock { $0 += 1 } }
  var value: Int { count.withLock { $0 } }
}
