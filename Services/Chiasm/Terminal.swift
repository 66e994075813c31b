#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What people see: answers on standard output, everything else on standard error.
enum Terminal {
  static var errorsAreShown: Bool { isatty(STDERR_FILENO) == 1 }
  static var outputIsShown: Bool { isatty(STDOUT_FILENO) == 1 }

  static func write(_ text: String) {
    put(text, to: STDOUT_FILENO)
  }

  /// Writes a model's words. A terminal gets no control characters from them but tabs and line
  /// ends: others could move the cursor, or worse.
  static func writeAnswer(_ text: String) {
    guard outputIsShown else { return write(text) }
    var shown = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      let isControl =
        scalar.properties.generalCategory == .control && scalar != "\n" && scalar != "\t"
      shown.append(isControl ? "\u{FFFD}" : scalar)
    }
    write(String(shown))
  }

  static func say(_ text: String) {
    put(text + "\n", to: STDERR_FILENO)
  }

  /// Writes one line over the last one of this kind; an empty one takes it away.
  static func saySoFar(_ text: String) {
    put("\r\u{1B}[K" + text, to: STDERR_FILENO)
  }

  static func complain(_ text: String) {
    put("chiasm: \(text)\n", to: STDERR_FILENO)
  }

  /// Columns of the terminal; 100 where there is none.
  static var width: Int {
    var size = winsize()
    guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 100 }
    return Int(size.ws_col)
  }

  private static func put(_ text: String, to descriptor: Int32) {
    var text = text
    text.withUTF8 { bytes in
      var written = 0
      while written < bytes.count {
        let count = Glibc.write(
          descriptor, bytes.baseAddress.map { $0 + written }, bytes.count - written)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return }
        written += count
      }
    }
  }
}
