import CMessages

/// Asks a vision stage, a projector or the first language stage to take one picture further.
/// Its tensor is what the stage before made of the picture; see inference.proto.
public struct EncodeRequest: Message {
  /// The sequence the picture belongs to.
  public var sequence: UInt64 = 0
  /// The picture's place among the sequence's pictures.
  public var picture: Int = 0
  /// Sends the vision stages' output back as tensor "vision".
  public var captureVision: Bool = false
  /// Sends the projector's output back as tensor "projector".
  public var captureProjector: Bool = false

  public init() {}

  public init(
    sequence: UInt64 = 0, picture: Int = 0, captureVision: Bool = false,
    captureProjector: Bool = false
  ) {
    self.sequence = sequence
    self.picture = picture
    self.captureVision = captureVision
    self.captureProjector = captureProjector
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension EncodeRequest: CodedMessage {
  static var protoName: String { "EncodeRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__EncodeRequest>?) -> Void {
    chiasm__v1__encode_request__init
  }

  init(_ c: Chiasm__V1__EncodeRequest) throws {
    self.init()
    if c.has_sequence != 0 { sequence = c.sequence }
    if c.has_picture != 0 { picture = try Read.integer(c.picture, "EncodeRequest.picture") }
    captureVision = c.has_capture_vision != 0 && c.capture_vision != 0
    captureProjector = c.has_capture_projector != 0 && c.capture_projector != 0
  }

  func fill(_ c: inout Chiasm__V1__EncodeRequest, _ memory: BumpMemory) {
    if sequence != 0 { (c.has_sequence, c.sequence) = (1, sequence) }
    if picture != 0 { (c.has_picture, c.picture) = (1, UInt32(clamping: picture)) }
    if captureVision { (c.has_capture_vision, c.capture_vision) = (1, 1) }
    if captureProjector { (c.has_capture_projector, c.capture_projector) = (1, 1) }
  }
}

/// Says that a picture reached the language model.
public struct EncodeReply: Message {
  /// Image tokens placed.
  public var tokens: Int = 0
  /// Computing time of each stage on the way, last first.
  public var busyMicroseconds: [Int] = []

  public init() {}

  public init(tokens: Int = 0, busyMicroseconds: [Int] = []) {
    self.tokens = tokens
    self.busyMicroseconds = busyMicroseconds
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension EncodeReply: CodedMessage {
  static var protoName: String { "EncodeReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__EncodeReply>?) -> Void {
    chiasm__v1__encode_reply__init
  }

  init(_ c: Chiasm__V1__EncodeReply) throws {
    self.init()
    if c.has_tokens != 0 { tokens = try Read.integer(c.tokens, "EncodeReply.tokens") }
    busyMicroseconds =
      try Read.integers(c.n_busy_microseconds, c.busy_microseconds, "EncodeReply.busy_microseconds")
  }

  func fill(_ c: inout Chiasm__V1__EncodeReply, _ memory: BumpMemory) {
    if tokens != 0 { (c.has_tokens, c.tokens) = (1, UInt32(clamping: tokens)) }
    if !busyMicroseconds.isEmpty {
      (c.n_busy_microseconds, c.busy_microseconds) = (
        busyMicroseconds.count, memory.integers(busyMicroseconds)
      )
    }
  }
}
