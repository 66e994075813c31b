import Messages

/// How a call failed: gRPC's status.
public struct RPCError: Error, Equatable, CustomStringConvertible {
  public var code: StatusCode
  /// What was found, where, and what to do about it.
  public var message: String

  public init(_ code: StatusCode, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { "\(code): \(message)" }
}

/// An error that knows which status a caller on the other side should see.
///
/// A handler's other errors become INTERNAL.
public protocol StatusConvertible: Error {
  var statusCode: StatusCode { get }
}

extension RPCError {
  /// What a caller sees when its handler throws `error`.
  public init(handlerError error: any Error) {
    switch error {
    case let error as RPCError: self = error
    case let error as any StatusConvertible: self.init(error.statusCode, "\(error)")
    case is CancellationError: self.init(.cancelled, "the handler was cancelled")
    default: self.init(.internal, "\(error)")
    }
  }

  static func cancelled(_ what: String) -> RPCError {
    RPCError(.cancelled, "\(what) was cancelled by its caller")
  }

  static func deadlineExceeded(_ what: String) -> RPCError {
    RPCError(.deadlineExceeded, "\(what) did not finish before its deadline")
  }
}
