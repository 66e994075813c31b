import Synchronization
import Tensors

/// Memory for what an operation holds beside its operands, kept from one call to the next: fresh
/// pages cost more than many an operation.
///
/// It grows to what was asked for most. Who finds it in use by another thread gets memory of its
/// own.
final class Workspace: Sendable {
  private let kept = Mutex<Tensor?>(nil)

  /// Calls `body` with `count` floats of any content, which must not escape it.
  func withFloats<Result>(_ count: Int, _ body: (Tensor) throws -> Result) rethrows -> Result {
    try withRoom(for: count) { try body($0.rows(0..<count)) }
  }

  /// The same, by their address, which is a multiple of 64.
  func withMemory<Result>(
    _ count: Int, _ body: (UnsafeMutablePointer<Float>) throws -> Result
  ) rethrows -> Result {
    try withRoom(for: count) { try body($0.floatBase) }
  }

  private func withRoom<Result>(
    for count: Int, _ body: (Tensor) throws -> Result
  ) rethrows -> Result {
    var whole = kept.withLock { kept in
      defer { kept = nil }
      return kept
    }
    if whole.map({ $0.count < count }) == true { whole = nil }
    let room = whole ?? Tensor(uninitialized: .float32, [count])
    defer { kept.withLock { $0 = room } }
    return try body(room)
  }
}
