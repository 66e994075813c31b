import Messages

/// Joins connections: calls go through, with their tensors, deadlines and cancellation, without
/// being understood.
public enum Bridge {
  /// A router that forwards every call, of any method, to where `target` says.
  ///
  /// - Parameter target: for a call's context, the connection to call on and the authority to
  ///   ask for there; its errors become the call's status.
  public static func router(
    to target: @escaping @Sendable (CallContext) async throws -> (Connection, authority: String?)
  ) -> Router {
    var router = Router()
    router.forward { request, context, writer in
      let (connection, authority) = try await target(context)
      let exchange = try await connection.begin(
        context.method, request.take(), authority: authority, deadline: context.deadline)
      while true {
        switch try await exchange.next() {
        case .response(let payload): try await writer.write(payload)
        case .end(let payload): return payload
        }
      }
    }
    return router
  }

  /// Forwards calls to `channel`, for the service that `authority` names there; without one,
  /// for the service that the call itself names.
  public static func router(to channel: Channel, authority: String? = nil) -> Router {
    router { context in
      (try await channel.connection(deadline: context.deadline), authority ?? context.authority)
    }
  }

  /// Forwards calls to the service that each call's authority names.
  public static func router(byAuthority services: [String: Channel]) -> Router {
    router { context in
      guard let channel = services[context.authority ?? ""] else {
        throw RPCError(
          .notFound,
          "no service \"\(context.authority ?? "")\" behind this bridge; there are:"
            + " \(services.keys.sorted().joined(separator: ", "))")
      }
      return (try await channel.connection(deadline: context.deadline), authority: nil)
    }
  }
}
