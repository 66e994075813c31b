import CMessages

/// How the next token is chosen. The defaults are greedy.
public struct SamplingParameters: Message {
  /// 0: greedy.
  public var temperature: Float = 0
  /// 0: off.
  public var topK: Int = 0
  /// 1: off.
  public var topP: Float = 1
  /// 0: off.
  public var minP: Float = 0
  /// 1: off. Counts generated tokens only, as the reference does.
  public var repetitionPenalty: Float = 1
  public var seed: UInt64?
  /// Log-probabilities of the chosen token and of this many best ones; nil: none.
  public var topLogprobs: Int?

  public init() {}

  public init(
    temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0,
    repetitionPenalty: Float = 1, seed: UInt64? = nil, topLogprobs: Int? = nil
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.seed = seed
    self.topLogprobs = topLogprobs
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension SamplingParameters: CodedMessage {
  static var protoName: String { "SamplingParameters" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__SamplingParameters>?) -> Void {
    chiasm__v1__sampling_parameters__init
  }

  init(_ c: Chiasm__V1__SamplingParameters) throws {
    self.init()
    if c.has_temperature != 0 { temperature = c.temperature }
    if c.has_top_k != 0 { topK = try Read.integer(c.top_k, "SamplingParameters.top_k") }
    if c.has_top_p != 0 { topP = c.top_p }
    if c.has_min_p != 0 { minP = c.min_p }
    if c.has_repetition_penalty != 0 { repetitionPenalty = c.repetition_penalty }
    if c.has_seed != 0 { seed = c.seed }
    if c.has_top_logprobs != 0 {
      topLogprobs = try Read.integer(c.top_logprobs, "SamplingParameters.top_logprobs")
    }
  }

  func fill(_ c: inout Chiasm__V1__SamplingParameters, _ memory: BumpMemory) {
    if temperature != 0 { (c.has_temperature, c.temperature) = (1, temperature) }
    if topK != 0 { (c.has_top_k, c.top_k) = (1, UInt32(clamping: topK)) }
    if topP != 1 { (c.has_top_p, c.top_p) = (1, topP) }
    if minP != 0 { (c.has_min_p, c.min_p) = (1, minP) }
    if repetitionPenalty != 1 {
      (c.has_repetition_penalty, c.repetition_penalty) = (1, repetitionPenalty)
    }
    if let seed { (c.has_seed, c.seed) = (1, seed) }
    if let topLogprobs { (c.has_top_logprobs, c.top_logprobs) = (1, UInt32(clamping: topLogprobs)) }
  }
}

/// The part of one sequence in a step: a chunk of its prompt, or the token to decode from.
public struct SequenceStep: Message {
  /// Session in the upper 32 bits.
  public var sequence: UInt64 = 0
  /// Tokens already in the cache; anything cached beyond is forgotten.
  public var position: Int = 0
  public var tokens: [Int32] = []
  /// For each token: 0, or 1 + the index of the image row that takes its embedding's place,
  /// counted over all pictures of the sequence. Empty: no image rows.
  public var imageRows: [Int32] = []
  /// Length of the prompt: tokens from there on were generated.
  public var promptTokens: Int = 0
  /// Positions to reserve in the cache; sent with the first step.
  public var reserve: Int?
  /// Sample a token after the last one of this step.
  public var sample: Bool = false
  public var sampling: SamplingParameters?
  /// Send the logits of all rows back as a tensor "logits" [rows, V].
  public var captureLogits: Bool = false

  public init() {}

  public init(
    sequence: UInt64 = 0, position: Int = 0, tokens: [Int32] = [], imageRows: [Int32] = [],
    promptTokens: Int = 0, reserve: Int? = nil, sample: Bool = false,
    sampling: SamplingParameters? = nil, captureLogits: Bool = false
  ) {
    self.sequence = sequence
    self.position = position
    self.tokens = tokens
    self.imageRows = imageRows
    self.promptTokens = promptTokens
    self.reserve = reserve
    self.sample = sample
    self.sampling = sampling
    self.captureLogits = captureLogits
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension SequenceStep: CodedMessage {
  static var protoName: String { "SequenceStep" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__SequenceStep>?) -> Void {
    chiasm__v1__sequence_step__init
  }

  init(_ c: Chiasm__V1__SequenceStep) throws {
    self.init()
    if c.has_sequence != 0 { sequence = c.sequence }
    if c.has_position != 0 { position = try Read.integer(c.position, "SequenceStep.position") }
    tokens = try Read.integers(c.n_token, c.token, "SequenceStep.token")
    imageRows = try Read.integers(c.n_image_row, c.image_row, "SequenceStep.image_row")
    if c.has_prompt_tokens != 0 {
      promptTokens = try Read.integer(c.prompt_tokens, "SequenceStep.prompt_tokens")
    }
    if c.has_reserve != 0 { reserve = try Read.integer(c.reserve, "SequenceStep.reserve") }
    sample = c.has_sample != 0 && c.sample != 0
    sampling = try Read.message(c.sampling)
    captureLogits = c.has_capture_logits != 0 && c.capture_logits != 0
  }

  func fill(_ c: inout Chiasm__V1__SequenceStep, _ memory: BumpMemory) {
    if sequence != 0 { (c.has_sequence, c.sequence) = (1, sequence) }
    if position != 0 { (c.has_position, c.position) = (1, UInt32(clamping: position)) }
    if !tokens.isEmpty { (c.n_token, c.token) = (tokens.count, memory.integers(tokens)) }
    if !imageRows.isEmpty {
      (c.n_image_row, c.image_row) = (imageRows.count, memory.integers(imageRows))
    }
    if promptTokens != 0 {
      (c.has_prompt_tokens, c.prompt_tokens) = (1, UInt32(clamping: promptTokens))
    }
    if let reserve { (c.has_reserve, c.reserve) = (1, UInt32(clamping: reserve)) }
    if sample { (c.has_sample, c.sample) = (1, 1) }
    if let sampling { c.sampling = memory.message(sampling) }
    if captureLogits { (c.has_capture_logits, c.capture_logits) = (1, 1) }
  }
}

/// One pass over the weights for all the sequences in it.
/// Tensor: hidden states [rows, D] for all but the first stage.
public struct StepRequest: Message {
  public var steps: [SequenceStep] = []
  /// Which of the receiver's slices of layers, where stages hold several and form a ring.
  public var chunk: Int = 0

  public init() {}

  public init(steps: [SequenceStep] = [], chunk: Int = 0) {
    self.steps = steps
    self.chunk = chunk
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension StepRequest: CodedMessage {
  static var protoName: String { "StepRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__StepRequest>?) -> Void {
    chiasm__v1__step_request__init
  }

  init(_ c: Chiasm__V1__StepRequest) throws {
    self.init()
    steps = try Read.messages(c.n_step, c.step)
    if c.has_chunk != 0 { chunk = try Read.integer(c.chunk, "StepRequest.chunk") }
  }

  func fill(_ c: inout Chiasm__V1__StepRequest, _ memory: BumpMemory) {
    if !steps.isEmpty { (c.n_step, c.step) = (steps.count, memory.messages(steps)) }
    if chunk != 0 { (c.has_chunk, c.chunk) = (1, UInt32(clamping: chunk)) }
  }
}

/// A token and its log-probability.
public struct TokenLogprob: Message {
  public var token: Int32 = 0
  public var logprob: Float = 0

  public init() {}

  public init(token: Int32 = 0, logprob: Float = 0) {
    self.token = token
    self.logprob = logprob
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TokenLogprob: CodedMessage {
  static var protoName: String { "TokenLogprob" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TokenLogprob>?) -> Void {
    chiasm__v1__token_logprob__init
  }

  init(_ c: Chiasm__V1__TokenLogprob) throws {
    self.init()
    if c.has_token != 0 { token = try Read.integer(c.token, "TokenLogprob.token") }
    if c.has_logprob != 0 { logprob = c.logprob }
  }

  func fill(_ c: inout Chiasm__V1__TokenLogprob, _ memory: BumpMemory) {
    if token != 0 { (c.has_token, c.token) = (1, UInt32(clamping: token)) }
    if logprob != 0 { (c.has_logprob, c.logprob) = (1, logprob) }
  }
}

/// What a step did for one sequence.
public struct SequenceResult: Message {
  public var sequence: UInt64 = 0
  /// nil when nothing was sampled.
  public var token: Int32?
  public var logprob: Float?
  public var top: [TokenLogprob] = []
  /// Why this sequence's part failed; nil when it did not.
  public var errorCode: StatusCode?
  public var errorMessage: String?

  public init() {}

  public init(
    sequence: UInt64 = 0, token: Int32? = nil, logprob: Float? = nil, top: [TokenLogprob] = [],
    errorCode: StatusCode? = nil, errorMessage: String? = nil
  ) {
    self.sequence = sequence
    self.token = token
    self.logprob = logprob
    self.top = top
    self.errorCode = errorCode
    self.errorMessage = errorMessage
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension SequenceResult: CodedMessage {
  static var protoName: String { "SequenceResult" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__SequenceResult>?) -> Void {
    chiasm__v1__sequence_result__init
  }

  init(_ c: Chiasm__V1__SequenceResult) throws {
    self.init()
    if c.has_sequence != 0 { sequence = c.sequence }
    if c.has_token != 0 { token = try Read.integer(c.token, "SequenceResult.token") }
    if c.has_logprob != 0 { logprob = c.logprob }
    top = try Read.messages(c.n_top, c.top)
    if c.has_error_code != 0 {
      errorCode = try Read.choice(c.error_code, "SequenceResult.error_code")
    }
    errorMessage = try Read.string(c.error_message, "SequenceResult.error_message")
  }

  func fill(_ c: inout Chiasm__V1__SequenceResult, _ memory: BumpMemory) {
    if sequence != 0 { (c.has_sequence, c.sequence) = (1, sequence) }
    if let token { (c.has_token, c.token) = (1, UInt32(clamping: token)) }
    if let logprob { (c.has_logprob, c.logprob) = (1, logprob) }
    if !top.isEmpty { (c.n_top, c.top) = (top.count, memory.messages(top)) }
    if let errorCode { (c.has_error_code, c.error_code) = (1, errorCode.rawValue) }
    if let errorMessage { c.error_message = memory.string(errorMessage) }
  }
}

/// What a step did.
public struct StepReply: Message {
  public var results: [SequenceResult] = []
  /// Computing time of each stage on the way, last first.
  public var busyMicroseconds: [Int] = []

  public init() {}

  public init(results: [SequenceResult] = [], busyMicroseconds: [Int] = []) {
    self.results = results
    self.busyMicroseconds = busyMicroseconds
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension StepReply: CodedMessage {
  static var protoName: String { "StepReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__StepReply>?) -> Void {
    chiasm__v1__step_reply__init
  }

  init(_ c: Chiasm__V1__StepReply) throws {
    self.init()
    results = try Read.messages(c.n_result, c.result)
    busyMicroseconds =
      try Read.integers(c.n_busy_microseconds, c.busy_microseconds, "StepReply.busy_microseconds")
  }

  func fill(_ c: inout Chiasm__V1__StepReply, _ memory: BumpMemory) {
    if !results.isEmpty { (c.n_result, c.result) = (results.count, memory.messages(results)) }
    if !busyMicroseconds.isEmpty {
      (c.n_busy_microseconds, c.busy_microseconds) = (
        busyMicroseconds.count, memory.integers(busyMicroseconds)
      )
    }
  }
}

/// Asks a language stage to forget sequences and their pictures.
public struct EndRequest: Message {
  public var sequences: [UInt64] = []

  public init() {}

  public init(sequences: [UInt64] = []) {
    self.sequences = sequences
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension EndRequest: CodedMessage {
  static var protoName: String { "EndRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__EndRequest>?) -> Void {
    chiasm__v1__end_request__init
  }

  init(_ c: Chiasm__V1__EndRequest) throws {
    self.init()
    sequences = try Read.integers(c.n_sequence, c.sequence, "EndRequest.sequence")
  }

  func fill(_ c: inout Chiasm__V1__EndRequest, _ memory: BumpMemory) {
    if !sequences.isEmpty {
      (c.n_sequence, c.sequence) = (sequences.count, memory.integers(sequences))
    }
  }
}

/// Says that the sequences are forgotten.
public struct EndReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension EndReply: CodedMessage {
  static var protoName: String { "EndReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__EndReply>?) -> Void {
    chiasm__v1__end_reply__init
  }

  init(_ c: Chiasm__V1__EndReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__EndReply, _ memory: BumpMemory) {}
}
