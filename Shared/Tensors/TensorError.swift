/// Ways in which a tensor cannot be made or used as asked.
public enum TensorError: Error, Equatable, CustomStringConvertible {
  /// A dimension is negative, or the element or byte count does not fit in `Int`.
  case invalidShape([Int])
  /// An operation got a tensor of another shape than it works on.
  case shapeMismatch(what: String, expected: [Int], found: [Int])
  /// An operation got a tensor of another scalar type than it works on.
  case scalarTypeMismatch(what: String, expected: [ScalarType], found: ScalarType)

  public var description: String {
    switch self {
    case .invalidShape(let dimensions):
      "shape \(dimensions) has a negative dimension or more bytes than can be addressed"
    case .shapeMismatch(let what, let expected, let found):
      "\(what) has shape \(found), expected \(expected)"
    case .scalarTypeMismatch(let what, let expected, let found):
      "\(what) holds \(found), expected \(expected.map(\.rawValue).joined(separator: " or "))"
    }
  }
}
