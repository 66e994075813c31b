extension TrainingConfiguration: Codable {
  private struct Name: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }

    init(_ name: String) { stringValue = name }
    init?(stringValue: String) { self.init(stringValue) }
    init?(intValue: Int) { nil }
  }

  /// Under the names that files have.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Name.self)
    for (name, value) in settings {
      switch value {
      case .null: try container.encodeNil(forKey: Name(name))
      case .boolean(let value): try container.encode(value, forKey: Name(name))
      case .integer(let value): try container.encode(value, forKey: Name(name))
      case .number(let value): try container.encode(value, forKey: Name(name))
      case .text(let value): try container.encode(value, forKey: Name(name))
      }
    }
  }

  /// - Throws: as ``apply(_:)`` does.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Name.self)
    let settings = try container.allKeys.map { key -> (name: String, value: SettingValue) in
      let name = key.stringValue
      if try container.decodeNil(forKey: key) { return (name, .null) }
      if let value = try? container.decode(Bool.self, forKey: key) {
        return (name, .boolean(value))
      }
      if let value = try? container.decode(Int.self, forKey: key) { return (name, .integer(value)) }
      if let value = try? container.decode(Double.self, forKey: key) {
        return (name, .number(value))
      }
      return (name, .text(try container.decode(String.self, forKey: key)))
    }
    try self.init(settings)
  }
}
