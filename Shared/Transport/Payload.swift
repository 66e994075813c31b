import Messages
import Tensors

/// A tensor that travels beside a message.
public struct Attachment: Sendable {
  /// What the tensor is, where a message carries several.
  public var name: String?
  public var tensor: Tensor

  public init(_ tensor: Tensor, name: String? = nil) {
    self.name = name
    self.tensor = tensor
  }
}

/// A message and the tensors beside it.
public struct Payload<M: Message>: Sendable {
  public var message: M
  public var tensors: [Attachment]

  public init(_ message: M, tensors: [Attachment] = []) {
    self.message = message
    self.tensors = tensors
  }

  /// The first tensor of that name.
  public func tensor(named name: String) -> Tensor? {
    tensors.first { $0.name == name }?.tensor
  }
}

extension Payload {
  /// The same with its tensors on the heap, so that the sender's arena is free again: for those
  /// who keep what they received.
  public func outOfArena() -> Payload {
    var copy = self
    for index in copy.tensors.indices {
      let original = copy.tensors[index].tensor
      let tensor = Tensor(uninitialized: original.scalarType, original.shape)
      tensor.copyElements(from: original)
      copy.tensors[index].tensor = tensor
    }
    return copy
  }
}

/// A payload whose message stays encoded: what a bridge hands on.
public struct RawPayload: Sendable {
  public var message: [UInt8]
  public var tensors: [Attachment]

  public init(message: [UInt8], tensors: [Attachment] = []) {
    self.message = message
    self.tensors = tensors
  }

  init<M: Message>(_ payload: Payload<M>) {
    self.init(message: payload.message.encoded(), tensors: payload.tensors)
  }

  func decoded<M: Message>(as type: M.Type) throws -> Payload<M> {
    Payload(try M.decode(message), tensors: tensors)
  }
}
