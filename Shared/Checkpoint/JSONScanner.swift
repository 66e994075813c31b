/// A cursor over JSON text (RFC 8259), for formats whose grammar is known to the caller.
///
/// Builds no tree: a header of 100 MB costs no more memory than what the caller keeps of it.
/// Names repeated in one object, more than ``maximumMembers`` of them, nesting deeper than
/// ``maximumDepth``, invalid UTF-8 and lone surrogates are errors. `NaN`, `Infinity` and
/// `-Infinity`, which Python's writer produces, are accepted as numbers.
package struct JSONScanner {
  package static let maximumDepth = 64
  package static let maximumMembers = 1 << 18

  private let bytes: UnsafeBufferPointer<UInt8>
  private let file: String
  private var depth = 0
  package private(set) var offset = 0

  /// - Parameter file: what errors name.
  package init(_ bytes: UnsafeRawBufferPointer, file: String) {
    self.bytes = bytes.bindMemory(to: UInt8.self)
    self.file = file
  }

  /// The next byte that is not white space, which stays unread; nil at the end.
  package mutating func peek() -> UInt8? {
    while offset < bytes.count {
      let byte = bytes[offset]
      guard byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 else { return byte }
      offset += 1
    }
    return nil
  }

  /// Reads `character` if it comes next.
  package mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard let byte = peek(), UInt32(byte) == character.value else { return false }
    offset += 1
    return true
  }

  /// - Throws: ``CheckpointError/invalidJSON(file:offset:reason:)``.
  package mutating func expect(_ character: Unicode.Scalar) throws {
    guard take(character) else { throw failure("expected '\(character)'") }
  }

  /// - Throws: ``CheckpointError/invalidJSON(file:offset:reason:)`` when text follows the value.
  package mutating func expectEnd() throws {
    guard peek() == nil else { throw failure("text after the end of the value") }
  }

  /// Reads an object; `body` reads the value of each member.
  ///
  /// - Throws: ``CheckpointError/duplicateName(file:name:)`` and invalid JSON.
  package mutating func object(_ body: (inout JSONScanner, String) throws -> Void) throws {
    try expect("{")
    try descend()
    defer { depth -= 1 }
    if take("}") { return }
    var seen: Set<String> = []
    repeat {
      let name = try string()
      guard seen.insert(name).inserted else {
        throw CheckpointError.duplicateName(file: file, name: name)
      }
      guard seen.count <= JSONScanner.maximumMembers else {
        throw failure("more than \(JSONScanner.maximumMembers) members in an object")
      }
      try expect(":")
      try body(&self, name)
    } while take(",")
    try expect("}")
  }

  /// Reads an array; `body` reads each element.
  package mutating func array(_ body: (inout JSONScanner) throws -> Void) throws {
    try expect("[")
    try descend()
    defer { depth -= 1 }
    if take("]") { return }
    repeat { try body(&self) } while take(",")
    try expect("]")
  }

  package mutating func string() throws -> String {
    try expect("\"")
    let start = offset
    while offset < bytes.count {
      switch bytes[offset] {
      case 0x22:
        let text = String(
          validating: UnsafeBufferPointer(rebasing: bytes[start..<offset]), as: UTF8.self)
        guard let text else { throw failure("a string is not UTF-8") }
        offset += 1
        return text
      case 0x5C: return try stringWithEscapes(from: start)
      case 0..<0x20: throw failure("a control character in a string")
      default: offset += 1
      }
    }
    throw failure("a string does not end")
  }

  /// An integer, `Int`-sized and written without fraction or exponent.
  package mutating func integer() throws -> Int {
    let start = offset
    guard case .integer(let value) = try number() else {
      offset = start
      throw failure("expected an integer of at most 63 bits")
    }
    return value
  }

  /// A number: `.integer` if written as one and small enough, else `.number`.
  package mutating func number() throws -> JSONValue {
    _ = peek()
    if take(word: "NaN") { return .number(.nan) }
    if take(word: "Infinity") { return .number(.infinity) }
    if take(word: "-Infinity") { return .number(-.infinity) }
    let start = offset
    if next() == UInt8(ascii: "-") { offset += 1 }
    let leading = next()
    try digits()
    if leading == UInt8(ascii: "0"), offset - start > (bytes[start] == UInt8(ascii: "-") ? 2 : 1) {
      throw failure("a number with a leading zero")
    }
    var isInteger = true
    if next() == UInt8(ascii: ".") {
      isInteger = false
      offset += 1
      try digits()
    }
    if next() == UInt8(ascii: "e") || next() == UInt8(ascii: "E") {
      isInteger = false
      offset += 1
      if next() == UInt8(ascii: "+") || next() == UInt8(ascii: "-") { offset += 1 }
      try digits()
    }
    guard offset - start <= 400 else { throw failure("a number of more than 400 characters") }
    let text = String(decoding: bytes[start..<offset], as: UTF8.self)
    if isInteger, let value = Int(text) { return .integer(value) }
    guard let value = Double(text) else { throw failure("not a number") }
    return .number(value)
  }

  /// Reads any value into a tree.
  package mutating func value() throws -> JSONValue {
    switch peek() {
    case UInt8(ascii: "{"):
      var members: [(String, JSONValue)] = []
      try object { scanner, name in members.append((name, try scanner.value())) }
      return .object(members)
    case UInt8(ascii: "["):
      var elements: [JSONValue] = []
      try array { elements.append(try $0.value()) }
      return .array(elements)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t") where take(word: "true"): return .boolean(true)
    case UInt8(ascii: "f") where take(word: "false"): return .boolean(false)
    case UInt8(ascii: "n") where take(word: "null"): return .null
    default: return try number()
    }
  }

  /// Reads any value and forgets it.
  package mutating func skipValue() throws {
    switch peek() {
    case UInt8(ascii: "{"): try object { scanner, _ in try scanner.skipValue() }
    case UInt8(ascii: "["): try array { try $0.skipValue() }
    default: _ = try value()
    }
  }

  package func failure(_ reason: String) -> CheckpointError {
    .invalidJSON(file: file, offset: offset, reason: reason)
  }

  // MARK: Private

  private mutating func descend() throws {
    guard depth < JSONScanner.maximumDepth else {
      throw failure("nested deeper than \(JSONScanner.maximumDepth) levels")
    }
    depth += 1
  }

  private func next() -> UInt8? { offset < bytes.count ? bytes[offset] : nil }

  private mutating func digits() throws {
    let start = offset
    while let byte = next(), (0x30...0x39).contains(byte) { offset += 1 }
    guard offset > start else { throw failure("expected a value") }
  }

  private mutating func take(word: StaticString) -> Bool {
    let count = word.utf8CodeUnitCount
    guard bytes.count - offset >= count else { return false }
    for index in 0..<count where bytes[offset + index] != word.utf8Start[index] { return false }
    offset += count
    return true
  }

  private mutating func stringWithEscapes(from start: Int) throws -> String {
    var text = Array(bytes[start..<offset])
    while let byte = next() {
      offset += 1
      switch byte {
      case 0x22:
        guard let result = String(validating: text, as: UTF8.self) else {
          throw failure("a string is not UTF-8")
        }
        return result
      case 0x5C: try appendEscape(to: &text)
      case 0..<0x20: throw failure("a control character in a string")
      default: text.append(byte)
      }
    }
    throw failure("a string does not end")
  }

  private mutating func appendEscape(to text: inout [UInt8]) throws {
    guard let byte = next() else { throw failure("a string does not end") }
    offset += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      var code = try hexadecimal()
      if (0xD800..<0xDC00).contains(code) {
        guard next() == 0x5C else { throw failure("a lone surrogate in a string") }
        offset += 1
        guard next() == UInt8(ascii: "u") else { throw failure("a lone surrogate in a string") }
        offset += 1
        let low = try hexadecimal()
        guard (0xDC00..<0xE000).contains(low) else {
          throw failure("a lone surrogate in a string")
        }
        code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
      }
      guard let scalar = Unicode.Scalar(code) else {
        throw failure("a lone surrogate in a string")
      }
      text.append(contentsOf: String(scalar).utf8)
    default: throw failure("an unknown escape in a string")
    }
  }

  private mutating func hexadecimal() throws -> UInt32 {
    var code: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = next(), let digit = Character(Unicode.Scalar(byte)).hexDigitValue,
        byte < 0x80
      else { throw failure("expected four hexadecimal digits") }
      code = code << 4 | UInt32(digit)
      offset += 1
    }
    return code
  }
}
