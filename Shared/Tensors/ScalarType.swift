/// How one element of a tensor is stored.
public enum ScalarType: String, Sendable, Hashable, CaseIterable {
  case float32, bfloat16, int64, int32, uint8

  /// Bytes of one element.
  public var byteCount: Int {
    switch self {
    case .int64: 8
    case .float32, .int32: 4
    case .bfloat16: 2
    case .uint8: 1
    }
  }
}
