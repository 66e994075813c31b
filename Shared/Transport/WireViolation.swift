import Messages

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Ways in which a peer breaks the protocol. Each ends the connection.
enum WireViolation: Error, Equatable, CustomStringConvertible {
  case flag(UInt8)
  case headTooLong(Int, limit: Int)
  case undecodable(MessagesError)
  case noHello(FrameKind)
  case helloTwice
  case version(UInt32)
  case unexpectedFrame(FrameKind)
  case callNumber(UInt64, FrameKind)
  case tooManyTensors(Int, limit: Int)
  case rank(Int)
  case byteCount(Int, shape: [Int])
  case inlineBytes(Int, limit: Int)
  case outOfMemory(Int)
  case noArena
  case arenaTwice
  case arenaWithoutDescriptor
  case arenaSize(UInt64, limit: Int)
  case arenaNotSealed(errno: Int32)
  case arenaNotMapped(errno: Int32)
  case outsideArena(offset: Int, byteCount: Int, arena: Int)
  case misaligned(offset: Int)
  case released(offset: UInt64)
  case descriptors
  case streamOverrun(UInt64)
  case credit(UInt64)
  case readsNothing

  var description: String {
    switch self {
    case .flag(let flag): "a frame begins with flag \(flag) instead of 0"
    case .headTooLong(let count, let limit): "a head of \(count) bytes, at most \(limit) are read"
    case .undecodable(let error): "\(error)"
    case .noHello(let kind): "its first frame is \(kind) instead of hello"
    case .helloTwice: "a second hello"
    case .version(let version):
      "it speaks version \(version) of the protocol, this side version \(Connection.version)"
    case .unexpectedFrame(let kind): "a frame of kind \(kind) that makes no sense here"
    case .callNumber(let call, let kind): "a \(kind) with call number \(call)"
    case .tooManyTensors(let count, let limit):
      "\(count) tensors beside one message, at most \(limit) are read"
    case .rank(let rank):
      "a tensor with \(rank) dimensions, at most \(Connection.maximumRank) are read"
    case .byteCount(let count, let shape): "a tensor of shape \(shape) with \(count) bytes"
    case .inlineBytes(let count, let limit):
      "\(count) bytes of tensors after one head, at most \(limit) are read"
    case .outOfMemory(let count): "no memory for its tensor of \(count) bytes"
    case .noArena: "a tensor in an arena it has not shared"
    case .arenaTwice: "a second arena"
    case .arenaWithoutDescriptor: "an arena without its descriptor"
    case .arenaSize(let count, let limit): "an arena of \(count) bytes, at most \(limit) are mapped"
    case .arenaNotSealed(let errno):
      switch errno {
      case EPERM: "an arena that is not sealed against changing its length"
      case ERANGE: "an arena of another length than it said"
      default: "an arena that is no shared memory: \(String(cString: strerror(errno)))"
      }
    case .arenaNotMapped(let errno):
      "its arena cannot be mapped: \(String(cString: strerror(errno)))"
    case .outsideArena(let offset, let count, let arena):
      "a tensor of \(count) bytes at offset \(offset) of an arena of \(arena) bytes"
    case .misaligned(let offset):
      "a tensor at arena offset \(offset), not aligned to its scalar type"
    case .released(let offset): "a release of arena offset \(offset), which it does not hold"
    case .descriptors: "file descriptors that nobody expects"
    case .streamOverrun(let call): "more responses of call \(call) than it may send ahead"
    case .credit(let call): "more credit for call \(call) than its window"
    case .readsNothing: "it reads none of its answers"
    }
  }
}
