/// A JSON object of a configuration file, read key by key with the checks a border needs.
///
/// `null` counts as absent, as in the files that Python's libraries write. A key's default
/// stands in for its absence, never for a value of the wrong type.
struct ConfigurationObject {
  let file: String
  private let path: String
  private let members: [String: JSONValue]

  /// - Throws: ``CheckpointError/wrongType(file:key:expected:)`` when the file holds no object.
  init(_ bytes: [UInt8], file: String) throws {
    guard case .object(let members) = try JSONValue.parse(bytes, file: file) else {
      throw CheckpointError.wrongType(file: file, key: "the whole", expected: "an object")
    }
    self.init(members, path: "", file: file)
  }

  private init(_ members: [(String, JSONValue)], path: String, file: String) {
    self.file = file
    self.path = path
    self.members = Dictionary(members) { first, _ in first }
  }

  /// The key as errors name it, with the objects it lies in.
  func fullName(_ key: String) -> String { path + key }

  func contains(_ key: String) -> Bool { value(key) != nil }

  func integer(_ key: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws
    -> Int
  {
    guard let value = value(key) else { return try fallback ?? missing(key) }
    guard case .integer(let integer) = value else { throw wrongType(key, "an integer") }
    guard range.contains(integer) else {
      throw invalid(key, "\(integer)", "\(range.lowerBound) to \(range.upperBound)")
    }
    return integer
  }

  func number(_ key: String, in range: ClosedRange<Double>, default fallback: Double? = nil)
    throws -> Double
  {
    guard let value = value(key) else { return try fallback ?? missing(key) }
    let number: Double
    switch value {
    case .integer(let integer): number = Double(integer)
    case .number(let double): number = double
    default: throw wrongType(key, "a number")
    }
    guard range.contains(number) else {
      throw invalid(key, "\(number)", "\(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  func flag(_ key: String, default fallback: Bool) throws -> Bool {
    guard let value = value(key) else { return fallback }
    guard case .boolean(let flag) = value else { throw wrongType(key, "true or false") }
    return flag
  }

  func string(_ key: String) throws -> String? {
    guard let value = value(key) else { return nil }
    guard case .string(let string) = value else { throw wrongType(key, "a string") }
    return string
  }

  func requiredString(_ key: String) throws -> String {
    try string(key) ?? missing(key)
  }

  func object(_ key: String) throws -> ConfigurationObject? {
    guard let value = value(key) else { return nil }
    guard case .object(let members) = value else { throw wrongType(key, "an object") }
    return ConfigurationObject(members, path: path + key + ".", file: file)
  }

  func requiredObject(_ key: String) throws -> ConfigurationObject {
    try object(key) ?? missing(key)
  }

  func strings(_ key: String) throws -> [String]? {
    guard let value = value(key) else { return nil }
    guard case .array(let elements) = value else { throw wrongType(key, "a list of strings") }
    return try elements.map { element in
      guard case .string(let string) = element else { throw wrongType(key, "a list of strings") }
      return string
    }
  }

  func objects(_ key: String, limit: Int) throws -> [ConfigurationObject] {
    guard let value = value(key) else { return try missing(key) }
    guard case .array(let elements) = value, elements.count <= limit else {
      throw wrongType(key, "a list of at most \(limit) objects")
    }
    return try elements.enumerated().map { index, element in
      guard case .object(let members) = element else {
        throw wrongType(key, "a list of at most \(limit) objects")
      }
      return ConfigurationObject(members, path: "\(path)\(key)[\(index)].", file: file)
    }
  }

  /// All members, which are strings.
  func allStrings(limit: Int) throws -> [String: String] {
    guard members.count <= limit else {
      throw invalid("the whole", "\(members.count) members", "\(limit) at most")
    }
    var strings: [String: String] = [:]
    for key in members.keys { strings[key] = try string(key) }
    return strings
  }

  func numbers(_ key: String, count: Int) throws -> [Double]? {
    guard let value = value(key) else { return nil }
    guard case .array(let elements) = value, elements.count == count else {
      throw wrongType(key, "a list of \(count) numbers")
    }
    return try elements.map { element in
      switch element {
      case .integer(let integer): return Double(integer)
      case .number(let double): return double
      default: throw wrongType(key, "a list of \(count) numbers")
      }
    }
  }

  /// Token ids written as one integer or a list of them.
  func tokens(_ key: String) throws -> [Int]? {
    guard let value = value(key) else { return nil }
    let elements: [JSONValue]
    switch value {
    case .integer: elements = [value]
    case .array(let list): elements = list
    default: throw wrongType(key, "a token id or a list of them")
    }
    return try elements.map { element in
      guard case .integer(let token) = element else {
        throw wrongType(key, "a token id or a list of them")
      }
      guard (0...Limits.vocabularySize).contains(token) else {
        throw invalid(key, "\(token)", "ids from 0 to \(Limits.vocabularySize)")
      }
      return token
    }
  }

  func invalid(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    .invalidValue(file: file, key: fullName(key), found: shortened(found), expected: expected)
  }

  func unsupported(_ key: String, _ found: String, _ supported: String) -> CheckpointError {
    .unsupported(
      file: file, key: fullName(key), found: shortened(found), supported: supported)
  }

  private func value(_ key: String) -> JSONValue? {
    guard let value = members[key] else { return nil }
    if case .null = value { return nil }
    return value
  }

  private func missing<Value>(_ key: String) throws -> Value {
    throw CheckpointError.missingKey(file: file, key: fullName(key))
  }

  private func wrongType(_ key: String, _ expected: String) -> CheckpointError {
    .wrongType(file: file, key: fullName(key), expected: expected)
  }

  private func shortened(_ text: String) -> String {
    text.utf8.count <= 200 ? text : String(text.prefix(50)) + "…"
  }
}

/// The largest sizes taken seriously: several times those of the largest published models, and
/// small enough that no product of them overflows.
enum Limits {
  static let layers = 1 << 10
  static let width = 1 << 17
  static let heads = 1 << 10
  static let vocabularySize = 1 << 22
  static let positions = 1 << 24
  static let imageSize = 1 << 13
  static let tiles = 1 << 8
  static let configurationBytes = 4 << 20
}
