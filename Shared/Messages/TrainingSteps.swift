import CMessages

/// What an action of a training step does.
public enum ActionKind: UInt32, Sendable, Hashable, CaseIterable {
  case forward = 1
  /// The gradients of input and weights.
  case backward = 2
  /// The gradient of the input alone, and
  case backwardInput = 3
  /// the weights' gradients, which that left over.
  case backwardWeight = 4
}

/// A sample of a micro-batch.
public struct MicroBatchSample: Message {
  /// Names the sample in the data; drop path and dropout draw by it.
  public var key: UInt64 = 0
  public var tokens: Int = 0
  public var tiles: Int = 0
  /// Tokens of each of the turns that are hidden from each other, the sample's last ones.
  public var turns: [Int] = []

  public init() {}

  public init(key: UInt64 = 0, tokens: Int = 0, tiles: Int = 0, turns: [Int] = []) {
    self.key = key
    self.tokens = tokens
    self.tiles = tiles
    self.turns = turns
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension MicroBatchSample: CodedMessage {
  static var protoName: String { "MicroBatchSample" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__MicroBatchSample>?) -> Void {
    chiasm__v1__micro_batch_sample__init
  }

  init(_ c: Chiasm__V1__MicroBatchSample) throws {
    self.init()
    if c.has_key != 0 { key = c.key }
    if c.has_tokens != 0 { tokens = try Read.integer(c.tokens, "MicroBatchSample.tokens") }
    if c.has_tiles != 0 { tiles = try Read.integer(c.tiles, "MicroBatchSample.tiles") }
    turns = try Read.integers(c.n_turn, c.turn, "MicroBatchSample.turn")
  }

  func fill(_ c: inout Chiasm__V1__MicroBatchSample, _ memory: BumpMemory) {
    if key != 0 { (c.has_key, c.key) = (1, key) }
    if tokens != 0 { (c.has_tokens, c.tokens) = (1, UInt32(clamping: tokens)) }
    if tiles != 0 { (c.has_tiles, c.tiles) = (1, UInt32(clamping: tiles)) }
    if !turns.isEmpty { (c.n_turn, c.turn) = (turns.count, memory.integers(turns)) }
  }
}

/// What a stage has to know of one micro-batch. Its tensor, for the first vision stage, is
/// "pixels" [tiles, 3, H, W].
public struct FeedRequest: Message {
  public var step: UInt64 = 0
  public var microBatch: Int = 0
  /// One after another, unpadded; each attends to itself alone.
  public var samples: [MicroBatchSample] = []
  /// For the first language stage: ids of all samples.
  public var tokens: [Int32] = []
  /// For the last language stage: labels already shifted to the row that predicts them; −100
  /// where nothing is learnt.
  public var labels: [Int32] = []
  /// For the last language stage: what a row's loss counts in the step's.
  public var lossScale: Double = 0
  /// Tells the attempts at one step apart, so that nothing of an earlier one is taken for this.
  public var attempt: Int = 0
  /// For the last vision stage.
  public var patchTargets: [PatchTargetsMessage] = []
  /// For the first language stage.
  public var namingTargets: NamingTargetsMessage?

  public init() {}

  public init(
    step: UInt64 = 0, microBatch: Int = 0, samples: [MicroBatchSample] = [], tokens: [Int32] = [],
    labels: [Int32] = [], lossScale: Double = 0, attempt: Int = 0
  ) {
    self.step = step
    self.microBatch = microBatch
    self.samples = samples
    self.tokens = tokens
    self.labels = labels
    self.lossScale = lossScale
    self.attempt = attempt
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension FeedRequest: CodedMessage {
  static var protoName: String { "FeedRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__FeedRequest>?) -> Void {
    chiasm__v1__feed_request__init
  }

  init(_ c: Chiasm__V1__FeedRequest) throws {
    self.init()
    if c.has_step != 0 { step = c.step }
    if c.has_micro_batch != 0 {
      microBatch = try Read.integer(c.micro_batch, "FeedRequest.micro_batch")
    }
    samples = try Read.messages(c.n_sample, c.sample)
    tokens = try Read.integers(c.n_token, c.token, "FeedRequest.token")
    labels = try Read.integers(c.n_label, c.label, "FeedRequest.label")
    if c.has_loss_scale != 0 { lossScale = c.loss_scale }
    if c.has_attempt != 0 { attempt = try Read.integer(c.attempt, "FeedRequest.attempt") }
    patchTargets = try Read.messages(c.n_patch_target, c.patch_target)
    namingTargets = try Read.message(c.naming_target)
  }

  func fill(_ c: inout Chiasm__V1__FeedRequest, _ memory: BumpMemory) {
    if step != 0 { (c.has_step, c.step) = (1, step) }
    if microBatch != 0 { (c.has_micro_batch, c.micro_batch) = (1, UInt32(clamping: microBatch)) }
    if !samples.isEmpty { (c.n_sample, c.sample) = (samples.count, memory.messages(samples)) }
    if !tokens.isEmpty { (c.n_token, c.token) = (tokens.count, memory.integers(tokens)) }
    if !labels.isEmpty { (c.n_label, c.label) = (labels.count, memory.integers(labels)) }
    if lossScale != 0 { (c.has_loss_scale, c.loss_scale) = (1, lossScale) }
    if attempt != 0 { (c.has_attempt, c.attempt) = (1, UInt32(clamping: attempt)) }
    if !patchTargets.isEmpty {
      (c.n_patch_target, c.patch_target) = (patchTargets.count, memory.messages(patchTargets))
    }
    if let namingTargets { c.naming_target = memory.message(namingTargets) }
  }
}

/// Says that the stage has the micro-batch.
public struct FeedReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension FeedReply: CodedMessage {
  static var protoName: String { "FeedReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__FeedReply>?) -> Void {
    chiasm__v1__feed_reply__init
  }

  init(_ c: Chiasm__V1__FeedReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__FeedReply, _ memory: BumpMemory) {}
}

/// One thing a stage does in a step.
public struct TrainingAction: Message {
  public var kind: ActionKind = .forward
  public var microBatch: Int = 0
  /// Which of the stage's slices of layers.
  public var chunk: Int = 0

  public init() {}

  public init(kind: ActionKind = .forward, microBatch: Int = 0, chunk: Int = 0) {
    self.kind = kind
    self.microBatch = microBatch
    self.chunk = chunk
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TrainingAction: CodedMessage {
  static var protoName: String { "TrainingAction" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TrainingAction>?) -> Void {
    chiasm__v1__training_action__init
  }

  init(_ c: Chiasm__V1__TrainingAction) throws {
    self.init()
    kind = try Read.choice(c.has_kind != 0 ? c.kind.rawValue : 0, "TrainingAction.kind")
    if c.has_micro_batch != 0 {
      microBatch = try Read.integer(c.micro_batch, "TrainingAction.micro_batch")
    }
    if c.has_chunk != 0 { chunk = try Read.integer(c.chunk, "TrainingAction.chunk") }
  }

  func fill(_ c: inout Chiasm__V1__TrainingAction, _ memory: BumpMemory) {
    (c.has_kind, c.kind) = (1, Chiasm__V1__ActionKind(kind.rawValue))
    if microBatch != 0 { (c.has_micro_batch, c.micro_batch) = (1, UInt32(clamping: microBatch)) }
    if chunk != 0 { (c.has_chunk, c.chunk) = (1, UInt32(clamping: chunk)) }
  }
}

/// The whole of a stage's work in one step, in order.
public struct TrainingStepRequest: Message {
  public var step: UInt64 = 0
  public var actions: [TrainingAction] = []
  public var microBatches: Int = 0
  /// No gradients: the loss alone.
  public var forwardOnly: Bool = false
  /// As the micro-batches were fed.
  public var attempt: Int = 0

  public init() {}

  public init(
    step: UInt64 = 0, actions: [TrainingAction] = [], microBatches: Int = 0,
    forwardOnly: Bool = false, attempt: Int = 0
  ) {
    self.step = step
    self.actions = actions
    self.microBatches = microBatches
    self.forwardOnly = forwardOnly
    self.attempt = attempt
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TrainingStepRequest: CodedMessage {
  static var protoName: String { "TrainingStepRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TrainingStepRequest>?) -> Void {
    chiasm__v1__training_step_request__init
  }

  init(_ c: Chiasm__V1__TrainingStepRequest) throws {
    self.init()
    if c.has_step != 0 { step = c.step }
    actions = try Read.messages(c.n_action, c.action)
    if c.has_micro_batches != 0 {
      microBatches = try Read.integer(c.micro_batches, "TrainingStepRequest.micro_batches")
    }
    forwardOnly = c.has_forward_only != 0 && c.forward_only != 0
    if c.has_attempt != 0 { attempt = try Read.integer(c.attempt, "TrainingStepRequest.attempt") }
  }

  func fill(_ c: inout Chiasm__V1__TrainingStepRequest, _ memory: BumpMemory) {
    if step != 0 { (c.has_step, c.step) = (1, step) }
    if !actions.isEmpty { (c.n_action, c.action) = (actions.count, memory.messages(actions)) }
    if microBatches != 0 {
      (c.has_micro_batches, c.micro_batches) = (1, UInt32(clamping: microBatches))
    }
    if forwardOnly { (c.has_forward_only, c.forward_only) = (1, 1) }
    if attempt != 0 { (c.has_attempt, c.attempt) = (1, UInt32(clamping: attempt)) }
  }
}
