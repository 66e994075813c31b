import CEdit
import Threads

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Reads lines from a person, with editing and history, or from a pipe without.
struct LineEditor {
  private let isTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
  private let thread = DedicatedThread(name: "lines")

  init() {
    guard isTerminal else { return }
    // Without a locale of this encoding the library drops every character but ASCII.
    setlocale(LC_CTYPE, "C.UTF-8")
    using_history()
    stifle_history(1000)
  }

  /// - Returns: nil at the end of the input.
  /// - Throws: `CancellationError`, at once, though the person may still be typing.
  func read(prompt: String) async throws -> String? {
    guard isTerminal else { return try await thread.runAbandonably { _ in readLine() } }
    do {
      return try await thread.runAbandonably { _ in
        guard let line = readline(prompt) else { return nil }
        defer { free(line) }
        if line.pointee != 0 { add_history(line) }
        return String(cString: line)
      }
    } catch {
      // The library has the terminal in its hands until it returns, which it will not.
      rl_deprep_terminal()
      throw error
    }
  }
}
