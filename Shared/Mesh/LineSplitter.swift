/// Cuts a stream of bytes into lines. A line longer than ``limit`` bytes comes in pieces, so
/// that a process that never ends one costs no memory.
struct LineSplitter {
  static let limit = 8192

  private var pending: [UInt8] = []

  mutating func feed(_ bytes: some Sequence<UInt8>, _ line: (String) -> Void) {
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        if pending.last == UInt8(ascii: "\r") { pending.removeLast() }
        line(String(decoding: pending, as: UTF8.self))
        pending.removeAll(keepingCapacity: true)
      } else {
        pending.append(byte)
        if pending.count == Self.limit { finish(line) }
      }
    }
  }

  /// Hands over what has no line end yet.
  mutating func finish(_ line: (String) -> Void) {
    guard !pending.isEmpty else { return }
    line(String(decoding: pending, as: UTF8.self))
    pending.removeAll(keepingCapacity: true)
  }
}
