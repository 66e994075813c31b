import CMessages

/// Asks a stage or a gateway what it is.
public struct DescribeRequest: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension DescribeRequest: CodedMessage {
  static var protoName: String { "DescribeRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__DescribeRequest>?) -> Void {
    chiasm__v1__describe_request__init
  }

  init(_ c: Chiasm__V1__DescribeRequest) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__DescribeRequest, _ memory: BumpMemory) {}
}

/// Some layers of a model part.
public struct LayerRange: Message {
  public var firstLayer: Int = 0
  /// One past the last.
  public var endLayer: Int = 0

  public init() {}

  public init(firstLayer: Int = 0, endLayer: Int = 0) {
    self.firstLayer = firstLayer
    self.endLayer = endLayer
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension LayerRange: CodedMessage {
  static var protoName: String { "LayerRange" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__LayerRange>?) -> Void {
    chiasm__v1__layer_range__init
  }

  init(_ c: Chiasm__V1__LayerRange) throws {
    self.init()
    if c.has_first_layer != 0 {
      firstLayer = try Read.integer(c.first_layer, "LayerRange.first_layer")
    }
    if c.has_end_layer != 0 { endLayer = try Read.integer(c.end_layer, "LayerRange.end_layer") }
  }

  func fill(_ c: inout Chiasm__V1__LayerRange, _ memory: BumpMemory) {
    if firstLayer != 0 { (c.has_first_layer, c.first_layer) = (1, UInt32(clamping: firstLayer)) }
    if endLayer != 0 { (c.has_end_layer, c.end_layer) = (1, UInt32(clamping: endLayer)) }
  }
}

/// What a stage is and holds.
public struct StageDescription: Message {
  /// "vision", "projector" or "language".
  public var role: String = ""
  public var firstLayer: Int = 0
  /// One past the last layer held.
  public var endLayer: Int = 0
  /// Layers of the whole model part.
  public var layerCount: Int = 0
  public var device: String = ""
  public var threads: Int = 0
  public var process: Int64 = 0
  public var weightBytes: Int = 0
  /// Upper bound of memory besides the weights.
  public var workingBytes: Int = 0
  public var cacheTokens: Int = 0
  public var cacheTokensUsed: Int = 0
  public var sequences: Int = 0
  public var calls: Int = 0
  public var busyMicroseconds: Int = 0
  /// SHA-256 of config.json: all stages of a mesh must agree.
  public var modelDigest: String = ""
  /// Positions are handed out in blocks of this many.
  public var cacheBlockTokens: Int = 0
  /// All slices of layers, where there are several; `firstLayer` and `endLayer` are the first
  /// one's.
  public var slices: [LayerRange] = []

  public init() {}

  public init(
    role: String = "", firstLayer: Int = 0, endLayer: Int = 0, layerCount: Int = 0,
    device: String = "", threads: Int = 0, process: Int64 = 0, weightBytes: Int = 0,
    workingBytes: Int = 0, cacheTokens: Int = 0, cacheTokensUsed: Int = 0, sequences: Int = 0,
    calls: Int = 0, busyMicroseconds: Int = 0, modelDigest: String = ""
  ) {
    self.role = role
    self.firstLayer = firstLayer
    self.endLayer = endLayer
    self.layerCount = layerCount
    self.device = device
    self.threads = threads
    self.process = process
    self.weightBytes = weightBytes
    self.workingBytes = workingBytes
    self.cacheTokens = cacheTokens
    self.cacheTokensUsed = cacheTokensUsed
    self.sequences = sequences
    self.calls = calls
    self.busyMicroseconds = busyMicroseconds
    self.modelDigest = modelDigest
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension StageDescription: CodedMessage {
  static var protoName: String { "StageDescription" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__StageDescription>?) -> Void {
    chiasm__v1__stage_description__init
  }

  init(_ c: Chiasm__V1__StageDescription) throws {
    self.init()
    role = try Read.string(c.role, "StageDescription.role") ?? ""
    if c.has_first_layer != 0 {
      firstLayer = try Read.integer(c.first_layer, "StageDescription.first_layer")
    }
    if c.has_end_layer != 0 {
      endLayer = try Read.integer(c.end_layer, "StageDescription.end_layer")
    }
    if c.has_layer_count != 0 {
      layerCount = try Read.integer(c.layer_count, "StageDescription.layer_count")
    }
    device = try Read.string(c.device, "StageDescription.device") ?? ""
    if c.has_threads != 0 { threads = try Read.integer(c.threads, "StageDescription.threads") }
    if c.has_process != 0 { process = c.process }
    if c.has_weight_bytes != 0 {
      weightBytes = try Read.integer(c.weight_bytes, "StageDescription.weight_bytes")
    }
    if c.has_working_bytes != 0 {
      workingBytes = try Read.integer(c.working_bytes, "StageDescription.working_bytes")
    }
    if c.has_cache_tokens != 0 {
      cacheTokens = try Read.integer(c.cache_tokens, "StageDescription.cache_tokens")
    }
    if c.has_cache_tokens_used != 0 {
      cacheTokensUsed = try Read.integer(c.cache_tokens_used, "StageDescription.cache_tokens_used")
    }
    if c.has_sequences != 0 {
      sequences = try Read.integer(c.sequences, "StageDescription.sequences")
    }
    if c.has_calls != 0 { calls = try Read.integer(c.calls, "StageDescription.calls") }
    if c.has_busy_microseconds != 0 {
      busyMicroseconds = try Read.integer(c.busy_microseconds, "StageDescription.busy_microseconds")
    }
    modelDigest = try Read.string(c.model_digest, "StageDescription.model_digest") ?? ""
    if c.has_cache_block_tokens != 0 {
      cacheBlockTokens = try Read.integer(
        c.cache_block_tokens, "StageDescription.cache_block_tokens")
    }
    slices = try Read.messages(c.n_slice, c.slice)
  }

  func fill(_ c: inout Chiasm__V1__StageDescription, _ memory: BumpMemory) {
    if !role.isEmpty { c.role = memory.string(role) }
    if firstLayer != 0 { (c.has_first_layer, c.first_layer) = (1, UInt32(clamping: firstLayer)) }
    if endLayer != 0 { (c.has_end_layer, c.end_layer) = (1, UInt32(clamping: endLayer)) }
    if layerCount != 0 { (c.has_layer_count, c.layer_count) = (1, UInt32(clamping: layerCount)) }
    if !device.isEmpty { c.device = memory.string(device) }
    if threads != 0 { (c.has_threads, c.threads) = (1, UInt32(clamping: threads)) }
    if process != 0 { (c.has_process, c.process) = (1, process) }
    if weightBytes != 0 {
      (c.has_weight_bytes, c.weight_bytes) = (1, UInt64(clamping: weightBytes))
    }
    if workingBytes != 0 {
      (c.has_working_bytes, c.working_bytes) = (1, UInt64(clamping: workingBytes))
    }
    if cacheTokens != 0 {
      (c.has_cache_tokens, c.cache_tokens) = (1, UInt64(clamping: cacheTokens))
    }
    if cacheTokensUsed != 0 {
      (c.has_cache_tokens_used, c.cache_tokens_used) = (1, UInt64(clamping: cacheTokensUsed))
    }
    if sequences != 0 { (c.has_sequences, c.sequences) = (1, UInt64(clamping: sequences)) }
    if calls != 0 { (c.has_calls, c.calls) = (1, UInt64(clamping: calls)) }
    if busyMicroseconds != 0 {
      (c.has_busy_microseconds, c.busy_microseconds) = (1, UInt64(clamping: busyMicroseconds))
    }
    if !modelDigest.isEmpty { c.model_digest = memory.string(modelDigest) }
    if cacheBlockTokens != 0 {
      (c.has_cache_block_tokens, c.cache_block_tokens) = (1, UInt32(clamping: cacheBlockTokens))
    }
    if !slices.isEmpty { (c.n_slice, c.slice) = (slices.count, memory.messages(slices)) }
  }
}

/// Held open by a gateway for as long as it uses the stage.
public struct AttachRequest: Message {
  /// Upper 32 bits of all sequence ids the gateway will use.
  public var session: UInt32 = 0

  public init() {}

  public init(session: UInt32 = 0) {
    self.session = session
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension AttachRequest: CodedMessage {
  static var protoName: String { "AttachRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__AttachRequest>?) -> Void {
    chiasm__v1__attach_request__init
  }

  init(_ c: Chiasm__V1__AttachRequest) throws {
    self.init()
    if c.has_session != 0 { session = c.session }
  }

  func fill(_ c: inout Chiasm__V1__AttachRequest, _ memory: BumpMemory) {
    if session != 0 { (c.has_session, c.session) = (1, session) }
  }
}

/// Says that the stage holds the session.
public struct AttachReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension AttachReply: CodedMessage {
  static var protoName: String { "AttachReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__AttachReply>?) -> Void {
    chiasm__v1__attach_reply__init
  }

  init(_ c: Chiasm__V1__AttachReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__AttachReply, _ memory: BumpMemory) {}
}
