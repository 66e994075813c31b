import CMessages

/// What a frame is for. See control.proto.
public enum FrameKind: UInt32, Sendable, Hashable, CaseIterable {
  case unspecified = 0
  case hello = 1
  case request = 2
  case response = 3
  case status = 4
  case cancel = 5
  case arena = 6
  case release = 7
  case goAway = 8
  case credit = 9
}

/// How a call ended.
public struct CallStatus: Message {
  public var code: StatusCode = .ok
  /// What was found, where, and what to do about it.
  public var message: String = ""

  public init() {}

  public init(code: StatusCode = .ok, message: String = "") {
    self.code = code
    self.message = message
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension CallStatus: CodedMessage {
  static var protoName: String { "Status" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__Status>?) -> Void {
    chiasm__v1__status__init
  }

  init(_ c: Chiasm__V1__Status) throws {
    self.init()
    if c.has_code != 0 { code = try Read.choice(UInt32(c.code.rawValue), "Status.code") }
    message = try Read.string(c.message, "Status.message") ?? ""
  }

  func fill(_ c: inout Chiasm__V1__Status, _ memory: BumpMemory) {
    if code != .ok { (c.has_code, c.code) = (1, Chiasm__V1__StatusCode(code.rawValue)) }
    if !message.isEmpty { c.message = memory.string(message) }
  }
}

/// Head of a frame. See control.proto.
public struct Frame: Message {
  public var kind: FrameKind = .unspecified
  /// Odd when the connecting side made the call.
  public var call: UInt64 = 0
  /// "chiasm.v1.Service/Method".
  public var method: String = ""
  /// Which service of several behind the connection the call is for.
  public var authority: String?
  /// Time left for the call, from its sending.
  public var timeoutMicroseconds: UInt64?
  public var status: CallStatus?
  /// The encoded request or response.
  public var message: [UInt8]?
  public var tensors: [TensorRef] = []
  /// Arena offsets given back.
  public var released: [UInt64] = []
  public var version: UInt32 = 0
  public var acceptsArena: Bool = false
  public var arenaByteCount: UInt64 = 0
  /// Responses that may be under way on one stream before a credit.
  public var streamWindow: UInt32 = 0
  public var credit: UInt32 = 0

  public init() {}

  public init(
    kind: FrameKind = .unspecified, call: UInt64 = 0, method: String = "", authority: String? = nil,
    timeoutMicroseconds: UInt64? = nil, status: CallStatus? = nil, message: [UInt8]? = nil,
    tensors: [TensorRef] = [], released: [UInt64] = [], version: UInt32 = 0,
    acceptsArena: Bool = false, arenaByteCount: UInt64 = 0, streamWindow: UInt32 = 0,
    credit: UInt32 = 0
  ) {
    self.kind = kind
    self.call = call
    self.method = method
    self.authority = authority
    self.timeoutMicroseconds = timeoutMicroseconds
    self.status = status
    self.message = message
    self.tensors = tensors
    self.released = released
    self.version = version
    self.acceptsArena = acceptsArena
    self.arenaByteCount = arenaByteCount
    self.streamWindow = streamWindow
    self.credit = credit
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension Frame: CodedMessage {
  static var protoName: String { "Frame" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__Frame>?) -> Void {
    chiasm__v1__frame__init
  }

  init(_ c: Chiasm__V1__Frame) throws {
    self.init()
    if c.has_kind != 0 { kind = try Read.choice(UInt32(c.kind.rawValue), "Frame.kind") }
    if c.has_call != 0 { call = c.call }
    method = try Read.string(c.method, "Frame.method") ?? ""
    authority = try Read.string(c.authority, "Frame.authority")
    if c.has_timeout_microseconds != 0 { timeoutMicroseconds = c.timeout_microseconds }
    status = try Read.message(c.status)
    if c.has_message != 0 { message = Read.bytes(c.message) }
    tensors = try Read.messages(c.n_tensor, c.tensor)
    released = try Read.integers(c.n_released, c.released, "Frame.released")
    if c.has_version != 0 { version = c.version }
    acceptsArena = c.has_accepts_arena != 0 && c.accepts_arena != 0
    if c.has_arena_byte_count != 0 { arenaByteCount = c.arena_byte_count }
    if c.has_stream_window != 0 { streamWindow = c.stream_window }
    if c.has_credit != 0 { credit = c.credit }
  }

  func fill(_ c: inout Chiasm__V1__Frame, _ memory: BumpMemory) {
    if kind != .unspecified { (c.has_kind, c.kind) = (1, Chiasm__V1__FrameKind(kind.rawValue)) }
    if call != 0 { (c.has_call, c.call) = (1, call) }
    if !method.isEmpty { c.method = memory.string(method) }
    if let authority { c.authority = memory.string(authority) }
    if let timeoutMicroseconds {
      (c.has_timeout_microseconds, c.timeout_microseconds) = (1, timeoutMicroseconds)
    }
    if let status { c.status = memory.message(status) }
    if let message { (c.has_message, c.message) = (1, memory.bytes(message)) }
    if !tensors.isEmpty { (c.n_tensor, c.tensor) = (tensors.count, memory.messages(tensors)) }
    if !released.isEmpty {
      (c.n_released, c.released) = (released.count, memory.integers(released))
    }
    if version != 0 { (c.has_version, c.version) = (1, version) }
    if acceptsArena { (c.has_accepts_arena, c.accepts_arena) = (1, 1) }
    if arenaByteCount != 0 { (c.has_arena_byte_count, c.arena_byte_count) = (1, arenaByteCount) }
    if streamWindow != 0 { (c.has_stream_window, c.stream_window) = (1, streamWindow) }
    if credit != 0 { (c.has_credit, c.credit) = (1, credit) }
  }
}
