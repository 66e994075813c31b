import Messages
import Synchronization
import Tensors
import Transport

/// Where a stage hands its output on.
public enum Next: Sendable, Equatable {
  case endpoint(Endpoint)
  /// Back over the connection on which the stage is spoken to, for the service of that name: the
  /// way of a stage behind `--stdio`, which has no other connection to the mesh.
  case peer(service: String)

  /// Reads `peer:NAME` or an endpoint.
  ///
  /// - Throws: `TransportError` for what is neither; ``StageError/nextPrivate(_:)``.
  public init(parsing text: String) throws {
    if text.hasPrefix("peer:"), text.utf8.count > 5 {
      self = .peer(service: String(text.dropFirst(5)))
      return
    }
    let endpoint = try Endpoint(parsing: text)
    if case .exec(let command) = endpoint { throw StageError.nextPrivate(command) }
    self = .endpoint(endpoint)
  }
}

/// The connection over which a stage's output goes on, whichever it is.
final class Downstream: Sendable {
  private enum Way {
    case channel(Channel)
    case peer(service: String)
  }

  private let way: Way
  /// The connection on which the stage is spoken to.
  private let peer = Mutex<Connection?>(nil)

  init(_ next: Next, arenaBytes: Int) {
    switch next {
    case .endpoint(let endpoint):
      var options = Channel.Options()
      options.connection.arenaBytes = arenaBytes
      way = .channel(Channel(endpoint, options: options))
    case .peer(let service): way = .peer(service: service)
    }
  }

  /// Tells of a connection on which the stage is spoken to.
  func didConnect(_ connection: Connection) {
    peer.withLock { $0 = connection }
  }

  func call<Request, Response>(
    _ method: Method<Request, Response>, _ request: Request, tensors: [Attachment],
    deadline: Deadline?
  ) async throws -> Payload<Response> {
    let (connection, authority) = try await connection(deadline)
    return try await connection.call(
      method, request, tensors: tensors, authority: authority, deadline: deadline)
  }

  /// A tensor in the memory that the next stage reads.
  func allocate(
    _ type: ScalarType, _ shape: [Int], deadline: Deadline?
  ) async throws -> Tensor {
    try await connection(deadline).0.allocate(type, shape, deadline: deadline)
  }

  /// As ``allocate(_:_:deadline:)``, without waiting for room: nil when there is none now.
  func allocateNow(
    _ type: ScalarType, _ shape: [Int], deadline: Deadline?
  ) async throws -> Tensor? {
    try await connection(deadline).0.allocateNow(type, shape)
  }

  /// Makes a call that may last long after its tensors were used: they are let go once they are
  /// sent.
  ///
  /// - Returns: the reply's tensors.
  func exchange<Request, Response>(
    _ method: Method<Request, Response>, _ parcel: Parcel<Request>, deadline: Deadline?
  ) async throws -> [Attachment] {
    let (connection, authority) = try await connection(deadline)
    let exchange = try await connection.begin(
      method.name,
      RawPayload(message: parcel.message.encoded(), tensors: parcel.takeTensors()),
      authority: authority, deadline: deadline)
    guard case .end(let payload?) = try await exchange.next() else {
      throw RPCError(.internal, "\(method.name) was answered without exactly one response")
    }
    return payload.tensors
  }

  private func connection(_ deadline: Deadline?) async throws -> (Connection, String?) {
    switch way {
    case .channel(let channel): return (try await channel.connection(deadline: deadline), nil)
    case .peer(let service):
      guard let connection = peer.withLock({ $0 }), connection.isOpen else {
        throw RPCError(.unavailable, "the connection back to \(service) is gone")
      }
      return (connection, service)
    }
  }
}
