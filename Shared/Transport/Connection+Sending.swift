import Messages
import Tensors

/// A message whose tensors are where the carrier wants them.
struct PreparedPayload: Sendable {
  var message: [UInt8]
  var tensors: [(name: String?, tensor: Tensor, arena: SendArena?)]
}

extension Connection {
  /// Puts tensors into the arena that are worth it and not there; waits for room.
  func prepare(_ payload: RawPayload, deadline: Deadline?) async throws -> PreparedPayload {
    try checkSize(payload)
    if let room = outbox.roomWaiter() {
      let what = "waiting for \(peer) to read"
      var timer: UInt64?
      if let deadline {
        timer = addTimer(deadline) { room.resolve(.failure(RPCError.deadlineExceeded(what))) }
      }
      defer { timers.remove(timer) }
      try await room.value(whenCancelled: .cancelled(what))
    }
    guard let (arena, byteCount) = try copiedBytes(payload) else {
      return place(payload, copies: nil)
    }
    // All copies in one block: two callers that each hold a part would wait for each other.
    let storage = try await allocate(byteCount, in: arena, deadline: deadline)
    return place(payload, copies: (arena, storage))
  }

  /// As ``prepare(_:deadline:)``, but what finds no room in the arena follows in the stream.
  func prepareNow(_ payload: RawPayload) throws -> PreparedPayload {
    try checkSize(payload)
    guard let (arena, byteCount) = try copiedBytes(payload),
      let storage = try arena.allocateNow(byteCount)
    else { return place(payload, copies: nil) }
    return place(payload, copies: (arena, storage))
  }

  /// Completes a frame and sends it.
  func send(_ frame: Frame, _ payload: PreparedPayload) {
    var frame = frame
    frame.message = payload.message
    var inline: [Tensor] = []
    frame.tensors = payload.tensors.map { name, tensor, arena in
      if arena == nil { inline.append(tensor) }
      return TensorRef(
        scalarType: tensor.scalarType, shape: tensor.shape, byteCount: tensor.byteCount,
        arenaOffset: arena?.addReference(to: tensor), name: name)
    }
    if case .stuck = outbox.send(frame, tensors: inline) { end(.readsNothing) }
  }

  /// What a peer with the usual limits would take for a broken protocol is refused here.
  private func checkSize(_ payload: RawPayload) throws {
    // The rest of a head: method, authority, status, references.
    let headBytes =
      payload.message.count
      + payload.tensors.reduce(4096) {
        $0 + 128 + ($1.name?.utf8.count ?? 0)
      }
    guard headBytes <= options.maximumHeadBytes else {
      throw RPCError(
        .resourceExhausted,
        "a message of \(payload.message.count) bytes; at most"
          + " \(options.maximumHeadBytes) bytes travel with one head")
    }
    guard payload.tensors.count <= options.maximumTensors else {
      throw RPCError(
        .resourceExhausted,
        "\(payload.tensors.count) tensors beside one message; at most"
          + " \(options.maximumTensors) travel"
      )
    }
    if let tensor = payload.tensors.first(where: { $0.tensor.shape.count > Connection.maximumRank })
    {
      throw RPCError(
        .invalidArgument,
        "a tensor of shape \(tensor.tensor.shape); at most"
          + " \(Connection.maximumRank) dimensions travel"
      )
    }
  }

  /// Bytes to be copied into the arena; nil when there is nothing to copy, or no room ever.
  private func copiedBytes(_ payload: RawPayload) throws -> (SendArena, Int)? {
    guard payload.tensors.contains(where: { $0.tensor.byteCount > options.inlineTensorBytes }),
      let arena = try sendArena()
    else { return nil }
    var byteCount = 0
    for attachment in payload.tensors where isCopied(attachment.tensor, arena) {
      byteCount += SendArena.rounded(attachment.tensor.byteCount)
    }
    return byteCount > 0 && byteCount <= arena.byteCount ? (arena, byteCount) : nil
  }

  private func isCopied(_ tensor: Tensor, _ arena: SendArena) -> Bool {
    tensor.byteCount > options.inlineTensorBytes && !arena.contains(tensor)
  }

  private func place(
    _ payload: RawPayload, copies: (arena: SendArena, storage: Storage)?
  ) -> PreparedPayload {
    let arena = copies?.arena ?? state.withLock { $0.arena }
    var offset = 0
    return PreparedPayload(
      message: payload.message,
      tensors: payload.tensors.map { attachment in
        let tensor = attachment.tensor
        if let arena, arena.contains(tensor), tensor.byteCount > 0 {
          return (attachment.name, tensor, arena)
        }
        guard let copies, isCopied(tensor, copies.arena),
          let copy = try? Tensor(
            tensor.scalarType, tensor.shape, storage: copies.storage, byteOffset: offset)
        else { return (attachment.name, tensor, nil) }
        offset += SendArena.rounded(tensor.byteCount)
        copy.copyElements(from: tensor)
        return (attachment.name, copy, copies.arena)
      })
  }
}
