/// A value of a file of settings, as YAML and JSON know them.
public enum SettingValue: Sendable, Equatable, CustomStringConvertible {
  case null
  case boolean(Bool)
  case integer(Int)
  case number(Double)
  case text(String)

  public var description: String {
    switch self {
    case .null: "null"
    case .boolean(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .number(let value): "\(value)"
    case .text(let value): "\"\(value)\""
    }
  }

  /// Of a number without a fraction, or a text that is one.
  var asInteger: Int? {
    switch self {
    case .integer(let value): value
    case .number(let value): Int(exactly: value)
    case .text(let text): Int(text) ?? Double(text).flatMap { Int(exactly: $0) }
    default: nil
    }
  }

  /// Texts too: YAML takes `1e-5` for one.
  var asNumber: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .number(let value): value
    case .text(let text): Double(text)
    default: nil
    }
  }

  /// Python's `True` too, which scripts have.
  var asBoolean: Bool? {
    switch self {
    case .boolean(let value): value
    case .text(let text):
      switch text.lowercased() {
      case "true", "yes", "on": true
      case "false", "no", "off": false
      default: nil
      }
    default: nil
    }
  }

  var asText: String? {
    if case .text(let text) = self { text } else { nil }
  }
}
