/// A JSON value as a tree, for files small enough to have one. Objects keep their order.
package enum JSONValue: Sendable {
  case null
  case boolean(Bool)
  case integer(Int)
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([(String, JSONValue)])

  /// - Throws: ``CheckpointError/invalidJSON(file:offset:reason:)``,
  ///   ``CheckpointError/duplicateName(file:name:)``; `file` is what they name.
  package static func parse(_ bytes: [UInt8], file: String) throws -> JSONValue {
    try bytes.withUnsafeBytes { bytes in
      var scanner = JSONScanner(bytes, file: file)
      let value = try scanner.value()
      try scanner.expectEnd()
      return value
    }
  }

  /// Indented JSON text, ending in a newline.
  package var text: String {
    var text = ""
    append(to: &text, indent: "")
    return text + "\n"
  }

  /// JSON text without white space.
  package var compactText: String {
    var text = ""
    append(to: &text, indent: nil)
    return text
  }

  private func append(to text: inout String, indent: String?) {
    switch self {
    case .null: text += "null"
    case .boolean(let value): text += value ? "true" : "false"
    case .integer(let value): text += "\(value)"
    case .number(let value): text += JSONValue.text(of: value)
    case .string(let value): JSONValue.append(value, to: &text)
    case .array(let elements):
      JSONValue.append(elements, "[", "]", to: &text, indent) { element, text, inner in
        element.append(to: &text, indent: inner)
      }
    case .object(let members):
      JSONValue.append(members, "{", "}", to: &text, indent) { member, text, inner in
        JSONValue.append(member.0, to: &text)
        text += inner == nil ? ":" : ": "
        member.1.append(to: &text, indent: inner)
      }
    }
  }

  /// What is not finite is written as Python's writer does, and ``JSONScanner`` reads.
  private static func text(of value: Double) -> String {
    value.isFinite ? "\(value)" : value.isNaN ? "NaN" : value < 0 ? "-Infinity" : "Infinity"
  }

  private static func append<Item>(
    _ items: [Item], _ open: String, _ close: String, to text: inout String, _ indent: String?,
    _ appendItem: (Item, inout String, String?) -> Void
  ) {
    let inner = indent.map { $0 + "  " }
    text += open
    for (index, item) in items.enumerated() {
      if index > 0 { text += "," }
      if let inner { text += "\n" + inner }
      appendItem(item, &text, inner)
    }
    if let indent, !items.isEmpty { text += "\n" + indent }
    text += close
  }

  private static func append(_ string: String, to text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      default:
        if scalar.value < 0x20 {
          let digits = String(scalar.value, radix: 16)
          text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        } else {
          text.unicodeScalars.append(scalar)
        }
      }
    }
    text += "\""
  }
}
