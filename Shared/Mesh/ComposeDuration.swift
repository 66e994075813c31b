/// Durations as Compose writes them: `1m30s`, `500ms`, `1.5h`.
enum ComposeDuration {
  private static let units: [(name: String, nanoseconds: Double)] = [
    ("ns", 1), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9),
    ("d", 86400e9),
  ]

  /// - Returns: nil for anything that is no duration, or one of more than a thousand days.
  static func parse(_ text: String) -> Duration? {
    var total = 0.0
    var rest = Substring(text)
    guard !rest.isEmpty else { return nil }
    while !rest.isEmpty {
      let digits = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
      rest = rest.dropFirst(digits.count)
      let name = rest.prefix { $0.isLetter }
      rest = rest.dropFirst(name.count)
      guard let amount = Double(digits),
        let unit = units.first(where: { $0.name == name })
      else { return nil }
      total += amount * unit.nanoseconds
    }
    guard total <= 1000 * 86400e9 else { return nil }
    return .nanoseconds(Int64(total))
  }
}
