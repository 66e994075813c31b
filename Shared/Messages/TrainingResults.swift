import CMessages

/// The loss of one micro-batch.
public struct MicroBatchLoss: Message {
  public var microBatch: Int = 0
  /// Over the labelled rows.
  public var sum: Double = 0
  public var rows: Int = 0

  public init() {}

  public init(microBatch: Int = 0, sum: Double = 0, rows: Int = 0) {
    self.microBatch = microBatch
    self.sum = sum
    self.rows = rows
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension MicroBatchLoss: CodedMessage {
  static var protoName: String { "MicroBatchLoss" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__MicroBatchLoss>?) -> Void {
    chiasm__v1__micro_batch_loss__init
  }

  init(_ c: Chiasm__V1__MicroBatchLoss) throws {
    self.init()
    if c.has_micro_batch != 0 {
      microBatch = try Read.integer(c.micro_batch, "MicroBatchLoss.micro_batch")
    }
    if c.has_sum != 0 { sum = c.sum }
    if c.has_rows != 0 { rows = try Read.integer(c.rows, "MicroBatchLoss.rows") }
  }

  func fill(_ c: inout Chiasm__V1__MicroBatchLoss, _ memory: BumpMemory) {
    if microBatch != 0 { (c.has_micro_batch, c.micro_batch) = (1, UInt32(clamping: microBatch)) }
    if sum != 0 { (c.has_sum, c.sum) = (1, sum) }
    if rows != 0 { (c.has_rows, c.rows) = (1, UInt32(clamping: rows)) }
  }
}

/// When an action was computed.
public struct ActionTiming: Message {
  public var action: TrainingAction = TrainingAction()
  /// From the arrival of the step's request, on CLOCK_MONOTONIC.
  public var startMicroseconds: Int = 0
  public var durationMicroseconds: Int = 0

  public init() {}

  public init(
    action: TrainingAction = TrainingAction(), startMicroseconds: Int = 0,
    durationMicroseconds: Int = 0
  ) {
    self.action = action
    self.startMicroseconds = startMicroseconds
    self.durationMicroseconds = durationMicroseconds
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ActionTiming: CodedMessage {
  static var protoName: String { "ActionTiming" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ActionTiming>?) -> Void {
    chiasm__v1__action_timing__init
  }

  init(_ c: Chiasm__V1__ActionTiming) throws {
    self.init()
    action = try Read.message(c.action) ?? TrainingAction()
    if c.has_start_microseconds != 0 {
      startMicroseconds = try Read.integer(c.start_microseconds, "ActionTiming.start_microseconds")
    }
    if c.has_duration_microseconds != 0 {
      durationMicroseconds = try Read.integer(
        c.duration_microseconds, "ActionTiming.duration_microseconds")
    }
  }

  func fill(_ c: inout Chiasm__V1__ActionTiming, _ memory: BumpMemory) {
    c.action = memory.message(action)
    if startMicroseconds != 0 {
      (c.has_start_microseconds, c.start_microseconds) = (1, UInt64(clamping: startMicroseconds))
    }
    if durationMicroseconds != 0 {
      (c.has_duration_microseconds, c.duration_microseconds) = (
        1, UInt64(clamping: durationMicroseconds)
      )
    }
  }
}

/// The size of one parameter's gradient.
public struct ParameterNorm: Message {
  public var name: String = ""
  /// Of the gradient's elements.
  public var sumOfSquares: Double = 0

  public init() {}

  public init(name: String = "", sumOfSquares: Double = 0) {
    self.name = name
    self.sumOfSquares = sumOfSquares
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ParameterNorm: CodedMessage {
  static var protoName: String { "ParameterNorm" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ParameterNorm>?) -> Void {
    chiasm__v1__parameter_norm__init
  }

  init(_ c: Chiasm__V1__ParameterNorm) throws {
    self.init()
    name = try Read.string(c.name, "ParameterNorm.name") ?? ""
    if c.has_sum_of_squares != 0 { sumOfSquares = c.sum_of_squares }
  }

  func fill(_ c: inout Chiasm__V1__ParameterNorm, _ memory: BumpMemory) {
    if !name.isEmpty { c.name = memory.string(name) }
    if sumOfSquares != 0 { (c.has_sum_of_squares, c.sum_of_squares) = (1, sumOfSquares) }
  }
}

/// What a stage's part of a step came to.
public struct TrainingStepReply: Message {
  /// The last language stage's.
  public var losses: [MicroBatchLoss] = []
  public var norms: [ParameterNorm] = []
  public var timings: [ActionTiming] = []
  /// CLOCK_MONOTONIC at the arrival of the step's request.
  public var originMicroseconds: Int = 0
  /// Most bytes kept at one time for backward passes still to come.
  public var peakSavedBytes: Int = 0
  /// Most micro-batches under way at one time, each chunk's counted.
  public var peakSavedMicroBatches: Int = 0
  /// The last vision stage's and the first language stage's.
  public var objectives: [ObjectiveLossMessage] = []

  public init() {}

  public init(
    losses: [MicroBatchLoss] = [], norms: [ParameterNorm] = [], timings: [ActionTiming] = [],
    originMicroseconds: Int = 0, peakSavedBytes: Int = 0, peakSavedMicroBatches: Int = 0
  ) {
    self.losses = losses
    self.norms = norms
    self.timings = timings
    self.originMicroseconds = originMicroseconds
    self.peakSavedBytes = peakSavedBytes
    self.peakSavedMicroBatches = peakSavedMicroBatches
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TrainingStepReply: CodedMessage {
  static var protoName: String { "TrainingStepReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TrainingStepReply>?) -> Void {
    chiasm__v1__training_step_reply__init
  }

  init(_ c: Chiasm__V1__TrainingStepReply) throws {
    self.init()
    losses = try Read.messages(c.n_loss, c.loss)
    norms = try Read.messages(c.n_norm, c.norm)
    timings = try Read.messages(c.n_timing, c.timing)
    if c.has_origin_microseconds != 0 {
      originMicroseconds = try Read.integer(
        c.origin_microseconds, "TrainingStepReply.origin_microseconds")
    }
    if c.has_peak_saved_bytes != 0 {
      peakSavedBytes = try Read.integer(c.peak_saved_bytes, "TrainingStepReply.peak_saved_bytes")
    }
    if c.has_peak_saved_micro_batches != 0 {
      peakSavedMicroBatches = try Read.integer(
        c.peak_saved_micro_batches, "TrainingStepReply.peak_saved_micro_batches")
    }
    objectives = try Read.messages(c.n_objective, c.objective)
  }

  func fill(_ c: inout Chiasm__V1__TrainingStepReply, _ memory: BumpMemory) {
    if !losses.isEmpty { (c.n_loss, c.loss) = (losses.count, memory.messages(losses)) }
    if !norms.isEmpty { (c.n_norm, c.norm) = (norms.count, memory.messages(norms)) }
    if !timings.isEmpty { (c.n_timing, c.timing) = (timings.count, memory.messages(timings)) }
    if originMicroseconds != 0 {
      (c.has_origin_microseconds, c.origin_microseconds) = (1, UInt64(clamping: originMicroseconds))
    }
    if peakSavedBytes != 0 {
      (c.has_peak_saved_bytes, c.peak_saved_bytes) = (1, UInt64(clamping: peakSavedBytes))
    }
    if peakSavedMicroBatches != 0 {
      (c.has_peak_saved_micro_batches, c.peak_saved_micro_batches) = (
        1, UInt32(clamping: peakSavedMicroBatches)
      )
    }
    if !objectives.isEmpty {
      (c.n_objective, c.objective) = (objectives.count, memory.messages(objectives))
    }
  }
}
