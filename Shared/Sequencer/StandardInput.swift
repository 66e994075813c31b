#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import Threads

/// Standard input: what it begins with, and its lines.
public enum StandardInput {
  /// The first byte, left where it is; nil at the end of the input.
  ///
  /// Waits for it. A terminal is a person who types text, so it counts as `{`.
  public static func peek() -> UInt8? {
    if isatty(STDIN_FILENO) == 1 { return UInt8(ascii: "{") }
    var status = stat()
    guard fstat(STDIN_FILENO, &status) == 0 else { return nil }
    var byte: UInt8 = 0
    switch status.st_mode & S_IFMT {
    case S_IFSOCK:
      return recv(STDIN_FILENO, &byte, 1, Int32(MSG_PEEK.rawValue)) == 1 ? byte : nil
    case S_IFREG:
      return pread(STDIN_FILENO, &byte, 1, lseek(STDIN_FILENO, 0, SEEK_CUR)) == 1 ? byte : nil
    default:
      return peekPipe()
    }
  }

  /// tee(2) copies from one pipe to another without taking anything out of the first.
  private static func peekPipe() -> UInt8? {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0 else { return nil }
    defer {
      close(ends[0])
      close(ends[1])
    }
    var byte: UInt8 = 0
    guard tee(STDIN_FILENO, ends[1], 1, 0) == 1, Glibc.read(ends[0], &byte, 1) == 1 else {
      return nil
    }
    return byte
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
