/// Whitespace as Python's `str.strip` sees it.
enum Whitespace {
  static func strippingLeft(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var rest = text
    while let size = sizeAtStart(of: rest) { rest = rest.dropFirst(size) }
    return rest
  }

  static func strippingRight(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    var rest = text
    while !rest.isEmpty {
      let start = rest.lastIndex { $0 & 0xC0 != 0x80 } ?? rest.startIndex
      guard sizeAtStart(of: rest[start...]) == rest.endIndex - start else { break }
      rest = rest[..<start]
    }
    return rest
  }

  /// Bytes of the whitespace character a text starts with; nil when it starts with another.
  private static func sizeAtStart(of text: ArraySlice<UInt8>) -> Int? {
    guard let lead = text.first else { return nil }
    let size = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : 3
    guard let scalar = String(decoding: text.prefix(size), as: UTF8.self).unicodeScalars.first
    else { return nil }
    switch scalar.value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F,
      0x205F, 0x3000:
      return size
    default:
      return nil
    }
  }
}
