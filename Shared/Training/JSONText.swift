/// JSON as a tree: of logs and traces, which this module writes and reads back.
///
/// Bounded in depth; callers bound the bytes. Takes Python's NaN and Infinity, which its json
/// writes and this module's logs have.
enum JSONText: Equatable {
  case null
  case boolean(Bool)
  case number(Double)
  case string(String)
  case array([JSONText])
  case object([(String, JSONText)])

  static let depthLimit = 64

  var double: Double? {
    if case .number(let value) = self { value } else { nil }
  }

  var text: String? {
    if case .string(let value) = self { value } else { nil }
  }

  /// The last member of this name, of an object.
  subscript(name: String) -> JSONText? {
    guard case .object(let members) = self else { return nil }
    return members.last { $0.0 == name }?.1
  }

  static func == (a: JSONText, b: JSONText) -> Bool {
    switch (a, b) {
    case (.null, .null): true
    case (.boolean(let a), .boolean(let b)): a == b
    case (.number(let a), .number(let b)): a == b
    case (.string(let a), .string(let b)): a == b
    case (.array(let a), .array(let b)): a == b
    case (.object(let a), .object(let b)): a.elementsEqual(b) { $0.0 == $1.0 && $0.1 == $1.1 }
    default: false
    }
  }

  /// - Throws: ``TrainingError/invalidJSON(offset:reason:)``.
  static func parse(_ bytes: [UInt8]) throws -> JSONText {
    var parser = Parser(bytes: bytes)
    let value = try parser.value(depth: 0)
    parser.skipSpace()
    guard parser.position == bytes.count else { throw parser.error("something after the value") }
    return value
  }

  /// A string in quotes, escaped.
  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      default:
        if scalar.value < 0x20 {
          let digits = String(scalar.value, radix: 16)
          result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        } else {
          result.unicodeScalars.append(scalar)
        }
      }
    }
    return result + "\""
  }
}

extension JSONText {
  private struct Parser {
    let bytes: [UInt8]
    var position = 0

    func error(_ reason: String) -> TrainingError { .invalidJSON(offset: position, reason: reason) }

    mutating func skipSpace() {
      while position < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[position]) {
        position += 1
      }
    }

    mutating func value(depth: Int) throws -> JSONText {
      guard depth < JSONText.depthLimit else {
        throw error("nested deeper than \(JSONText.depthLimit)")
      }
      skipSpace()
      guard position < bytes.count else { throw error("the text ends early") }
      switch bytes[position] {
      case UInt8(ascii: "{"): return try object(depth: depth)
      case UInt8(ascii: "["): return try array(depth: depth)
      case UInt8(ascii: "\""): return .string(try string())
      case UInt8(ascii: "t"): return try word("true", .boolean(true))
      case UInt8(ascii: "f"): return try word("false", .boolean(false))
      case UInt8(ascii: "n"): return try word("null", .null)
      case UInt8(ascii: "N"): return try word("NaN", .number(.nan))
      case UInt8(ascii: "I"): return try word("Infinity", .number(.infinity))
      default: return .number(try number())
      }
    }

    private mutating func word(_ word: String, _ value: JSONText) throws -> JSONText {
      let end = position + word.utf8.count
      guard end <= bytes.count, bytes[position..<end].elementsEqual(word.utf8) else {
        throw error("no value")
      }
      position = end
      return value
    }

    private mutating func object(depth: Int) throws -> JSONText {
      var members: [(String, JSONText)] = []
      position += 1
      skipSpace()
      if take("}") { return .object(members) }
      while true {
        skipSpace()
        guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else {
          throw error("no member name")
        }
        let name = try string()
        skipSpace()
        guard take(":") else { throw error("no colon after a member's name") }
        members.append((name, try value(depth: depth + 1)))
        skipSpace()
        if take("}") { return .object(members) }
        guard take(",") else { throw error("no comma between members") }
      }
    }

    private mutating func array(depth: Int) throws -> JSONText {
      var elements: [JSONText] = []
      position += 1
      skipSpace()
      if take("]") { return .array(elements) }
      while true {
        elements.append(try value(depth: depth + 1))
        skipSpace()
        if take("]") { return .array(elements) }
        guard take(",") else { throw error("no comma between elements") }
      }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
      guard position < bytes.count, bytes[position] == UInt8(ascii: character) else {
        return false
      }
      position += 1
      return true
    }

    private mutating func number() throws -> Double {
      let start = position
      let allowed = "+-.0123456789eE"
      while position < bytes.count, allowed.utf8.contains(bytes[position]) { position += 1 }
      let text = String(decoding: bytes[start..<position], as: UTF8.self)
      if text == "-", position < bytes.count, bytes[position] == UInt8(ascii: "I") {
        _ = try word("Infinity", .null)
        return -.infinity
      }
      guard let first = text.utf8.first, first != UInt8(ascii: "+"),
        let value = Double(text), value.isFinite
      else {
        position = start
        throw error("no value")
      }
      return value
    }

    private mutating func string() throws -> String {
      position += 1
      var text: [UInt8] = []
      while position < bytes.count {
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""):
          // Invalid UTF-8 would change under the hand of whoever reads it back.
          guard let string = String(validating: text, as: UTF8.self) else {
            throw error("a string that is not UTF-8")
          }
          return string
        case UInt8(ascii: "\\"): try text.append(contentsOf: Array(escaped().utf8))
        case 0..<0x20: throw error("a control character in a string")
        default: text.append(byte)
        }
      }
      throw error("a string without end")
    }

    private mutating func escaped() throws -> String {
      guard position < bytes.count else { throw error("a string without end") }
      let byte = bytes[position]
      position += 1
      switch byte {
      case UInt8(ascii: "\""): return "\""
      case UInt8(ascii: "\\"): return "\\"
      case UInt8(ascii: "/"): return "/"
      case UInt8(ascii: "b"): return "\u{8}"
      case UInt8(ascii: "f"): return "\u{C}"
      case UInt8(ascii: "n"): return "\n"
      case UInt8(ascii: "r"): return "\r"
      case UInt8(ascii: "t"): return "\t"
      case UInt8(ascii: "u"):
        var units = [try hexadecimal()]
        if UTF16.isLeadSurrogate(units[0]), take("\\") {
          guard take("u") else { throw error("half of a surrogate pair") }
          units.append(try hexadecimal())
        }
        guard let text = String(validating: units, as: UTF16.self) else {
          throw error("half of a surrogate pair")
        }
        return text
      default: throw error("an unknown escape")
      }
    }

    private mutating func hexadecimal() throws -> UInt16 {
      guard position + 4 <= bytes.count else { throw error("a string without end") }
      var value: UInt16 = 0
      for _ in 0..<4 {
        guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
          throw error("an escape without four digits")
        }
        value = value << 4 | UInt16(digit)
        position += 1
      }
      return value
    }
  }
}
