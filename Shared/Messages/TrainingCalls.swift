import CMessages

/// Hands the activations of one micro-batch on, as the call's tensor. The reply's is their
/// gradient, or none when nothing in front needs one.
public struct ForwardRequest: Message {
  public var step: UInt64 = 0
  public var microBatch: Int = 0
  /// Which of the receiver's slices of layers.
  public var chunk: Int = 0
  public var attempt: Int = 0

  public init() {}

  public init(step: UInt64 = 0, microBatch: Int = 0, chunk: Int = 0, attempt: Int = 0) {
    self.step = step
    self.microBatch = microBatch
    self.chunk = chunk
    self.attempt = attempt
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ForwardRequest: CodedMessage {
  static var protoName: String { "ForwardRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ForwardRequest>?) -> Void {
    chiasm__v1__forward_request__init
  }

  init(_ c: Chiasm__V1__ForwardRequest) throws {
    self.init()
    if c.has_step != 0 { step = c.step }
    if c.has_micro_batch != 0 {
      microBatch = try Read.integer(c.micro_batch, "ForwardRequest.micro_batch")
    }
    if c.has_chunk != 0 { chunk = try Read.integer(c.chunk, "ForwardRequest.chunk") }
    if c.has_attempt != 0 { attempt = try Read.integer(c.attempt, "ForwardRequest.attempt") }
  }

  func fill(_ c: inout Chiasm__V1__ForwardRequest, _ memory: BumpMemory) {
    if step != 0 { (c.has_step, c.step) = (1, step) }
    if microBatch != 0 { (c.has_micro_batch, c.micro_batch) = (1, UInt32(clamping: microBatch)) }
    if chunk != 0 { (c.has_chunk, c.chunk) = (1, UInt32(clamping: chunk)) }
    if attempt != 0 { (c.has_attempt, c.attempt) = (1, UInt32(clamping: attempt)) }
  }
}

/// The gradient of the activations is its tensor.
public struct ForwardReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ForwardReply: CodedMessage {
  static var protoName: String { "ForwardReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ForwardReply>?) -> Void {
    chiasm__v1__forward_reply__init
  }

  init(_ c: Chiasm__V1__ForwardReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__ForwardReply, _ memory: BumpMemory) {}
}

/// Ends a step: the optimizer takes the gradients.
public struct UpdateRequest: Message {
  public var step: UInt64 = 0
  public var learningRate: Double = 0
  /// Every gradient times this: clipping.
  public var gradientScale: Double = 0
  /// Drops the gradients instead.
  public var skip: Bool = false

  public init() {}

  public init(
    step: UInt64 = 0, learningRate: Double = 0, gradientScale: Double = 0, skip: Bool = false
  ) {
    self.step = step
    self.learningRate = learningRate
    self.gradientScale = gradientScale
    self.skip = skip
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension UpdateRequest: CodedMessage {
  static var protoName: String { "UpdateRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__UpdateRequest>?) -> Void {
    chiasm__v1__update_request__init
  }

  init(_ c: Chiasm__V1__UpdateRequest) throws {
    self.init()
    if c.has_step != 0 { step = c.step }
    if c.has_learning_rate != 0 { learningRate = c.learning_rate }
    if c.has_gradient_scale != 0 { gradientScale = c.gradient_scale }
    skip = c.has_skip != 0 && c.skip != 0
  }

  func fill(_ c: inout Chiasm__V1__UpdateRequest, _ memory: BumpMemory) {
    if step != 0 { (c.has_step, c.step) = (1, step) }
    if learningRate != 0 { (c.has_learning_rate, c.learning_rate) = (1, learningRate) }
    if gradientScale != 0 { (c.has_gradient_scale, c.gradient_scale) = (1, gradientScale) }
    if skip { (c.has_skip, c.skip) = (1, 1) }
  }
}

/// Says that the parameters are new.
public struct UpdateReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension UpdateReply: CodedMessage {
  static var protoName: String { "UpdateReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__UpdateReply>?) -> Void {
    chiasm__v1__update_reply__init
  }

  init(_ c: Chiasm__V1__UpdateReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__UpdateReply, _ memory: BumpMemory) {}
}

/// Forgets a step that did not end well.
public struct AbandonRequest: Message {
  public var step: UInt64 = 0

  public init() {}

  public init(step: UInt64 = 0) {
    self.step = step
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension AbandonRequest: CodedMessage {
  static var protoName: String { "AbandonRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__AbandonRequest>?) -> Void {
    chiasm__v1__abandon_request__init
  }

  init(_ c: Chiasm__V1__AbandonRequest) throws {
    self.init()
    if c.has_step != 0 { step = c.step }
  }

  func fill(_ c: inout Chiasm__V1__AbandonRequest, _ memory: BumpMemory) {
    if step != 0 { (c.has_step, c.step) = (1, step) }
  }
}

/// Says that nothing of the step is left.
public struct AbandonReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension AbandonReply: CodedMessage {
  static var protoName: String { "AbandonReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__AbandonReply>?) -> Void {
    chiasm__v1__abandon_reply__init
  }

  init(_ c: Chiasm__V1__AbandonReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__AbandonReply, _ memory: BumpMemory) {}
}

/// Ends a stage's training; it serves on with the weights as they are.
public struct ReleaseTrainingRequest: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ReleaseTrainingRequest: CodedMessage {
  static var protoName: String { "ReleaseTrainingRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ReleaseTrainingRequest>?) -> Void {
    chiasm__v1__release_training_request__init
  }

  init(_ c: Chiasm__V1__ReleaseTrainingRequest) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__ReleaseTrainingRequest, _ memory: BumpMemory) {}
}

/// Says that nothing of the training is left but the weights.
public struct ReleaseTrainingReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ReleaseTrainingReply: CodedMessage {
  static var protoName: String { "ReleaseTrainingReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ReleaseTrainingReply>?) -> Void {
    chiasm__v1__release_training_reply__init
  }

  init(_ c: Chiasm__V1__ReleaseTrainingReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__ReleaseTrainingReply, _ memory: BumpMemory) {}
}
