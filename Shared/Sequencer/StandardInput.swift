#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import CPlatform
import Synchronization
import Threads

/// Standard input: what it begins with.
public enum StandardInput {
  /// The first byte, left where it is; nil at the end of the input.
  ///
  /// Waits for it, on a thread of its own. A terminal is a person who types text, so it counts as `{`.
  /// - Throws: `CancellationError`, at once.
  public static func peek() async throws -> UInt8? {
    if isatty(STDIN_FILENO) == 1 { return UInt8(ascii: "{") }
    return try await DedicatedThread(name: "peek").runAbandonably { _ in
      UInt8(exactly: input_peek(STDIN_FILENO))
    }
  }
}

/// Standard input, line by line, read when asked.
final class LineReader: Sendable {
  enum Line: Sendable {
    case text([UInt8])
    /// More bytes than a line may have; they were skipped.
    case tooLong(limit: Int)
  }

  private let thread = DedicatedThread(name: "stdin")
  private let limit: Int
  /// Read and not yet handed out. Belongs to the thread.
  private let rest = Mutex<ArraySlice<UInt8>>([])

  init(limit: Int) { self.limit = limit }

  /// - Returns: nil at the end of the input.
  /// - Throws: `CancellationError`, at once.
  func next() async throws -> Line? {
    try await thread.runAbandonably { [self] _ in rest.withLock { read(&$0) } }
  }

  private func read(_ rest: inout ArraySlice<UInt8>) -> Line? {
    var line: [UInt8] = []
    var skips = false
    while true {
      let end = rest.firstIndex(of: 0x0a)
      let part = rest[..<(end ?? rest.endIndex)]
      if line.count + part.count <= limit { line += part } else { skips = true }
      if let end {
        rest = rest[(end + 1)...]
        return skips ? .tooLong(limit: limit) : .text(line)
      }
      rest = LineReader.chunk()
      if rest.isEmpty {
        if skips { return .tooLong(limit: limit) }
        return line.isEmpty ? nil : .text(line)
      }
    }
  }

  /// The next bytes of the input; none at its end.
  private static func chunk() -> ArraySlice<UInt8> {
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = Glibc.read(STDIN_FILENO, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      return buffer[..<max(0, count)]
    }
  }
}
