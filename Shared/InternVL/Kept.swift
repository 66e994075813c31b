import Synchronization

/// Memory that one call after the other works in: fresh pages cost more than many an operation.
///
/// Who finds it in use gets memory of its own.
final class Kept<Value: Sendable>: Sendable {
  private let value = Mutex<Value?>(nil)

  /// Calls `body` with what the last call left, if it is fit, or with what `make` makes.
  func use<Result>(
    where isFit: (Value) -> Bool, make: () -> Value, _ body: (Value) throws -> Result
  ) rethrows -> Result {
    let last = value.withLock { value in
      defer { value = nil }
      return value
    }
    let used = last.flatMap { isFit($0) ? $0 : nil } ?? make()
    defer { value.withLock { $0 = used } }
    return try body(used)
  }
}
