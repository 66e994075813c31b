/// Ways in which bytes from outside fail to be a message.
public enum MessagesError: Error, Equatable, CustomStringConvertible {
  /// The bytes are no encoding of the message, or its decoding would take more memory than a
  /// message of that length may.
  case malformed(message: String, byteCount: Int)
  /// A field's number names no case of its enumeration.
  case unknownEnumValue(field: String, value: Int)
  /// A text is not UTF-8.
  case invalidText(field: String)
  /// A number is larger than its field can mean.
  case numberOutOfRange(field: String, value: UInt64)

  public var description: String {
    switch self {
    case .malformed(let message, let byteCount):
      "\(byteCount) bytes are no encoding of a \(message), or decode to more than such a message"
        + " may hold; do both sides speak the same version of the protocol?"
    case .unknownEnumValue(let field, let value):
      "\(field) is \(value), which this version does not know"
    case .invalidText(let field):
      "\(field) is not UTF-8"
    case .numberOutOfRange(let field, let value):
      "\(field) is \(value), more than the field can mean"
    }
  }
}
