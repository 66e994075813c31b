#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import CPlatform
import Threads

/// Standard input: what it begins with, and its lines.
public enum StandardInput {
  /// The first byte, left where it is; nil at the end of the input.
  ///
  /// Waits for it. A terminal is a person who types text, so it counts as `{`.
  public static func peek() -> UInt8? {
    if isatty(STDIN_FILENO) == 1 { return UInt8(ascii: "{") }
    return UInt8(exactly: input_peek(STDIN_FILENO))
  }

  enum Line: Sendable {
    case text([UInt8])
    /// More bytes than a line may have; they were skipped.
    case tooLong(limit: Int)
  }

  /// Reads on a thread of its own until the input ends.
  static func lines(limit: Int) -> AsyncStream<Line> {
    let thread = DedicatedThread(name: "stdin")
    return AsyncStream { continuation in
      Task {
        _ = try? await thread.run { _ in
          read(limit: limit) { continuation.yield($0) }
        }
        continuation.finish()
      }
    }
  }

  private static func read(limit: Int, _ emit: (Line) -> Void) {
    var line: [UInt8] = []
    var skips = false
    var buffer = [UInt8](repeating: 0, count: 65536)
    func finish() {
      emit(skips ? .tooLong(limit: limit) : .text(line))
      line.removeAll(keepingCapacity: true)
      skips = false
    }
    while true {
      let count = Glibc.read(STDIN_FILENO, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { break }
      for byte in buffer[..<count] {
        if byte == 0x0a {
          finish()
        } else if line.count < limit {
          line.append(byte)
        } else {
          skips = true
        }
      }
    }
    if !line.isEmpty { finish() }
  }
}
