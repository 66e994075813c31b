/// A value that travels over the wire as one protobuf-c message of package `chiasm.v1`.
public protocol Message: Sendable, Equatable {
  /// The message with every field absent.
  init()

  /// Reads a message that comes from outside.
  ///
  /// Unknown fields are skipped. The memory used is bounded by the length of the input.
  /// - Throws: ``MessagesError``.
  static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self

  /// Appends the message's encoding.
  func encode(into bytes: inout [UInt8])
}

extension Message {
  /// - Throws: ``MessagesError``.
  public static func decode(_ bytes: [UInt8]) throws -> Self {
    try bytes.withUnsafeBytes { try decode($0) }
  }

  /// The message's encoding.
  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = []
    encode(into: &bytes)
    return bytes
  }
}
