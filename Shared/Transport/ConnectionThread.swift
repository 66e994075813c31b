import CPlatform
import Messages
import Tensors
import Threads

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A connection's own thread: reads and takes apart what the peer sends, sends what was queued,
/// and keeps the deadlines.
final class ConnectionThread: FrameReader.Source {
  /// The stream has ended without anybody's fault.
  private struct Ended: Error {
    var detail = ""
  }

  private let connection: Connection
  private let carrier: Carrier
  private let outbox: Outbox
  private var arena: ReceivedArena?
  private var pause = Pause()

  init(_ connection: Connection) {
    self.connection = connection
    carrier = connection.carrier
    outbox = connection.outbox
  }

  func run() {
    do {
      var reader = FrameReader(options: connection.options)
      try connection.receiveHello(try reader.head(from: self))
      while true { try receive(from: &reader) }
    } catch let violation as WireViolation {
      connection.end(violation)
    } catch let ended as Ended {
      connection.end(
        RPCError(.unavailable, "\(connection.peer) closed the connection\(ended.detail)"))
    } catch {
      connection.end(RPCError(.unavailable, "\(connection.peer): \(error)"))
    }
    finish()
  }

  /// Gives back what the connection holds of the system.
  func finish() {
    arena = nil
    // Whoever ends the connection may not have come to this yet, and a descriptor's number is
    // somebody else's once it is closed.
    outbox.close()
    carrier.close()
    if let process = carrier.process { ChildProcess.end(process) }
    connection.didEnd()
  }

  private func receive(from reader: inout FrameReader) throws {
    let frame = try reader.head(from: self)
    if frame.kind == .arena {
      guard arena == nil else { throw WireViolation.arenaTwice }
      guard carrier.kind == .unixSocket else { throw WireViolation.unexpectedFrame(.arena) }
      arena = try ReceivedArena(
        try reader.takeDescriptor(), byteCount: frame.arenaByteCount,
        limit: connection.options.maximumPeerArenaBytes)
      return
    }
    var tensors: [Attachment] = []
    if !frame.tensors.isEmpty {
      // Checked as a whole first, so that nothing is released of a frame that is refused.
      for reference in frame.tensors { try check(reference) }
      tensors.reserveCapacity(frame.tensors.count)
      for reference in frame.tensors {
        let tensor =
          if let offset = reference.arenaOffset, let arena {
            try arena.tensor(reference, at: offset, outbox: outbox)
          } else {
            try reader.inlineTensor(reference, from: self)
          }
        tensors.append(Attachment(tensor, name: reference.name))
      }
    }
    try connection.receive(frame, tensors)
  }

  private func check(_ reference: TensorRef) throws {
    guard let offset = reference.arenaOffset else { return }
    guard let arena else { throw WireViolation.noArena }
    guard reference.byteCount <= arena.byteCount, offset <= arena.byteCount - reference.byteCount
    else {
      throw WireViolation.outsideArena(
        offset: offset, byteCount: reference.byteCount, arena: arena.byteCount)
    }
    guard offset % reference.scalarType.byteCount == 0 else {
      throw WireViolation.misaligned(offset: offset)
    }
  }

  /// Blocks until the peer has sent something; sends and keeps deadlines meanwhile.
  func read(
    into buffer: UnsafeMutableRawBufferPointer, passed: inout [Descriptor]
  ) throws -> Int {
    while true {
      let deadline = connection.timers.fire()
      if connection.closeReason != nil { throw Ended() }
      let hasQueued = outbox.hasQueued
      // A pipe may block all the same, if a process that shares it undid what was set here.
      if !hasQueued, carrier.kind != .pipes,
        let count = try pause.look({ try receive(buffer, &passed) })
      {
        return count
      }
      let readiness = pause.sleep { carrier.wait(forOutput: hasQueued, until: deadline) }
      if readiness.output { outbox.flush() }
      if readiness.input {
        if let count = try receive(buffer, &passed) { return count }
      } else if outbox.hasFailed {
        // What the peer still said before comes first.
        throw Ended()
      }
    }
  }

  /// What has come from the peer; nil: nothing yet.
  private func receive(
    _ buffer: UnsafeMutableRawBufferPointer, _ passed: inout [Descriptor]
  ) throws -> Int? {
    switch carrier.receive(buffer, passed: &passed) {
    case .bytes(let count): return count
    case .wouldBlock: return nil
    case .ended: throw Ended()
    case .failed(EMSGSIZE): throw WireViolation.descriptors
    case .failed(let error): throw Ended(detail: ": \(String(cString: strerror(error)))")
    }
  }
}
