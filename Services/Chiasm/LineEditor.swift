import CEdit

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Reads lines from a person, with editing and history, or from a pipe without.
struct LineEditor {
  private let isTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1

  init() {
    if isTerminal {
      using_history()
      stifle_history(1000)
    }
  }

  /// - Returns: nil at the end of the input.
  func read(prompt: String) -> String? {
    guard isTerminal else { return readLine() }
    guard let line = readline(prompt) else { return nil }
    defer { free(line) }
    if line.pointee != 0 { add_history(line) }
    return String(cString: line)
  }
}
