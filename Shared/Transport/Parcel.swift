import Messages
import Synchronization

/// A message whose tensors are taken out once, so that only who took them decides how long the
/// sender's memory stays in use.
public final class Parcel<M: Message>: Sendable {
  public let message: M
  private let tensors: Mutex<[Attachment]>

  public init(_ payload: Payload<M>) {
    message = payload.message
    tensors = Mutex(payload.tensors)
  }

  /// The tensors at the first call; none later.
  public func takeTensors() -> [Attachment] {
    tensors.withLock { tensors in
      defer { tensors = [] }
      return tensors
    }
  }
}

/// The same of a payload whose message is left encoded.
public final class RawParcel: Sendable {
  private let payload: Mutex<RawPayload>

  public init(_ payload: RawPayload) { self.payload = Mutex(payload) }

  /// The payload at the first call; an empty one later.
  public func take() -> RawPayload {
    payload.withLock { payload in
      defer { payload = RawPayload(message: []) }
      return payload
    }
  }
}
