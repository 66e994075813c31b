import CMessages

/// One turn of a conversation.
public struct ChatTurn: Message {
  /// "system", "user" or "assistant".
  public var role: String = ""
  /// <image> marks where a picture goes; pictures are the request's uint8 tensors, encoded as
  /// JPEG or PNG, in order.
  public var text: String = ""

  public init() {}

  public init(role: String = "", text: String = "") {
    self.role = role
    self.text = text
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ChatTurn: CodedMessage {
  static var protoName: String { "ChatTurn" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ChatTurn>?) -> Void {
    chiasm__v1__chat_turn__init
  }

  init(_ c: Chiasm__V1__ChatTurn) throws {
    self.init()
    role = try Read.string(c.role, "ChatTurn.role") ?? ""
    if c.has_text != 0 { text = try Read.text(c.text, "ChatTurn.text") }
  }

  func fill(_ c: inout Chiasm__V1__ChatTurn, _ memory: BumpMemory) {
    if !role.isEmpty { c.role = memory.string(role) }
    if !text.isEmpty { (c.has_text, c.text) = (1, memory.text(text)) }
  }
}

/// Asks a gateway for an answer.
public struct ChatRequest: Message {
  public var turns: [ChatTurn] = []
  public var sampling: SamplingParameters?
  /// nil: up to the context length.
  public var maxTokens: Int?
  public var stop: [String] = []
  public var stopTokens: [Int32] = []
  /// Goes on past the end ids.
  public var ignoreEnd: Bool = false
  /// For probing: tensors "pixels", "vision", "projector" and "logits" with the first event.
  public var capture: Bool = false

  public init() {}

  public init(
    turns: [ChatTurn] = [], sampling: SamplingParameters? = nil, maxTokens: Int? = nil,
    stop: [String] = [], stopTokens: [Int32] = [], ignoreEnd: Bool = false, capture: Bool = false
  ) {
    self.turns = turns
    self.sampling = sampling
    self.maxTokens = maxTokens
    self.stop = stop
    self.stopTokens = stopTokens
    self.ignoreEnd = ignoreEnd
    self.capture = capture
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ChatRequest: CodedMessage {
  static var protoName: String { "ChatRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ChatRequest>?) -> Void {
    chiasm__v1__chat_request__init
  }

  init(_ c: Chiasm__V1__ChatRequest) throws {
    self.init()
    turns = try Read.messages(c.n_turn, c.turn)
    sampling = try Read.message(c.sampling)
    if c.has_max_tokens != 0 {
      maxTokens = try Read.integer(c.max_tokens, "ChatRequest.max_tokens")
    }
    stop = try Read.texts(c.n_stop, c.stop, "ChatRequest.stop")
    stopTokens = try Read.integers(c.n_stop_token, c.stop_token, "ChatRequest.stop_token")
    ignoreEnd = c.has_ignore_end != 0 && c.ignore_end != 0
    capture = c.has_capture != 0 && c.capture != 0
  }

  func fill(_ c: inout Chiasm__V1__ChatRequest, _ memory: BumpMemory) {
    if !turns.isEmpty { (c.n_turn, c.turn) = (turns.count, memory.messages(turns)) }
    if let sampling { c.sampling = memory.message(sampling) }
    if let maxTokens { (c.has_max_tokens, c.max_tokens) = (1, UInt32(clamping: maxTokens)) }
    if !stop.isEmpty { (c.n_stop, c.stop) = (stop.count, memory.texts(stop)) }
    if !stopTokens.isEmpty {
      (c.n_stop_token, c.stop_token) = (stopTokens.count, memory.integers(stopTokens))
    }
    if ignoreEnd { (c.has_ignore_end, c.ignore_end) = (1, 1) }
    if capture { (c.has_capture, c.capture) = (1, 1) }
  }
}

/// Tokens that a chat took.
public struct Usage: Message {
  public var promptTokens: Int = 0
  public var completionTokens: Int = 0
  public var imageTokens: Int = 0

  public init() {}

  public init(promptTokens: Int = 0, completionTokens: Int = 0, imageTokens: Int = 0) {
    self.promptTokens = promptTokens
    self.completionTokens = completionTokens
    self.imageTokens = imageTokens
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension Usage: CodedMessage {
  static var protoName: String { "Usage" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__Usage>?) -> Void {
    chiasm__v1__usage__init
  }

  init(_ c: Chiasm__V1__Usage) throws {
    self.init()
    if c.has_prompt_tokens != 0 {
      promptTokens = try Read.integer(c.prompt_tokens, "Usage.prompt_tokens")
    }
    if c.has_completion_tokens != 0 {
      completionTokens = try Read.integer(c.completion_tokens, "Usage.completion_tokens")
    }
    if c.has_image_tokens != 0 {
      imageTokens = try Read.integer(c.image_tokens, "Usage.image_tokens")
    }
  }

  func fill(_ c: inout Chiasm__V1__Usage, _ memory: BumpMemory) {
    if promptTokens != 0 {
      (c.has_prompt_tokens, c.prompt_tokens) = (1, UInt32(clamping: promptTokens))
    }
    if completionTokens != 0 {
      (c.has_completion_tokens, c.completion_tokens) = (1, UInt32(clamping: completionTokens))
    }
    if imageTokens != 0 {
      (c.has_image_tokens, c.image_tokens) = (1, UInt32(clamping: imageTokens))
    }
  }
}

/// Where the time of a chat went, in milliseconds.
public struct Timings: Message {
  public var queue: Double = 0
  public var image: Double = 0
  public var prefill: Double = 0
  public var decode: Double = 0
  public var total: Double = 0

  public init() {}

  public init(
    queue: Double = 0, image: Double = 0, prefill: Double = 0, decode: Double = 0, total: Double = 0
  ) {
    self.queue = queue
    self.image = image
    self.prefill = prefill
    self.decode = decode
    self.total = total
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension Timings: CodedMessage {
  static var protoName: String { "Timings" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__Timings>?) -> Void {
    chiasm__v1__timings__init
  }

  init(_ c: Chiasm__V1__Timings) throws {
    self.init()
    if c.has_queue_ms != 0 { queue = c.queue_ms }
    if c.has_image_ms != 0 { image = c.image_ms }
    if c.has_prefill_ms != 0 { prefill = c.prefill_ms }
    if c.has_decode_ms != 0 { decode = c.decode_ms }
    if c.has_total_ms != 0 { total = c.total_ms }
  }

  func fill(_ c: inout Chiasm__V1__Timings, _ memory: BumpMemory) {
    if queue != 0 { (c.has_queue_ms, c.queue_ms) = (1, queue) }
    if image != 0 { (c.has_image_ms, c.image_ms) = (1, image) }
    if prefill != 0 { (c.has_prefill_ms, c.prefill_ms) = (1, prefill) }
    if decode != 0 { (c.has_decode_ms, c.decode_ms) = (1, decode) }
    if total != 0 { (c.has_total_ms, c.total_ms) = (1, total) }
  }
}

/// The token that was chosen at one position, and the best ones.
public struct ChatLogprob: Message {
  public var chosen: TokenLogprob = TokenLogprob()
  public var top: [TokenLogprob] = []

  public init() {}

  public init(chosen: TokenLogprob = TokenLogprob(), top: [TokenLogprob] = []) {
    self.chosen = chosen
    self.top = top
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ChatLogprob: CodedMessage {
  static var protoName: String { "ChatLogprob" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ChatLogprob>?) -> Void {
    chiasm__v1__chat_logprob__init
  }

  init(_ c: Chiasm__V1__ChatLogprob) throws {
    self.init()
    chosen = try Read.message(c.chosen) ?? TokenLogprob()
    top = try Read.messages(c.n_top, c.top)
  }

  func fill(_ c: inout Chiasm__V1__ChatLogprob, _ memory: BumpMemory) {
    c.chosen = memory.message(chosen)
    if !top.isEmpty { (c.n_top, c.top) = (top.count, memory.messages(top)) }
  }
}

/// One event of an answer's stream. The last one has a finish reason.
public struct ChatEvent: Message {
  /// Text that became certain with this event: never part of a character.
  public var text: String = ""
  public var tokens: [Int32] = []
  public var logprobs: [ChatLogprob] = []
  /// "stop", "length".
  public var finishReason: String?
  public var usage: Usage?
  public var timings: Timings?
  /// First event: the prompt's ids, where they were asked for by `capture`.
  public var promptTokens: [Int32] = []
  /// First event, with `capture`: of the decoded 8-bit pixels of each picture.
  public var decodedSHA256: [String] = []
  /// First event, with `capture`: of the resized 8-bit pixels of each picture.
  public var resizedSHA256: [String] = []
  /// First event: the seed in use.
  public var seed: UInt64?

  public init() {}

  public init(
    text: String = "", tokens: [Int32] = [], logprobs: [ChatLogprob] = [],
    finishReason: String? = nil, usage: Usage? = nil, timings: Timings? = nil,
    promptTokens: [Int32] = [], decodedSHA256: [String] = [], resizedSHA256: [String] = [],
    seed: UInt64? = nil
  ) {
    self.text = text
    self.tokens = tokens
    self.logprobs = logprobs
    self.finishReason = finishReason
    self.usage = usage
    self.timings = timings
    self.promptTokens = promptTokens
    self.decodedSHA256 = decodedSHA256
    self.resizedSHA256 = resizedSHA256
    self.seed = seed
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ChatEvent: CodedMessage {
  static var protoName: String { "ChatEvent" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ChatEvent>?) -> Void {
    chiasm__v1__chat_event__init
  }

  init(_ c: Chiasm__V1__ChatEvent) throws {
    self.init()
    if c.has_text != 0 { text = try Read.text(c.text, "ChatEvent.text") }
    tokens = try Read.integers(c.n_token, c.token, "ChatEvent.token")
    logprobs = try Read.messages(c.n_logprob, c.logprob)
    finishReason = try Read.string(c.finish_reason, "ChatEvent.finish_reason")
    usage = try Read.message(c.usage)
    timings = try Read.message(c.timings)
    promptTokens = try Read.integers(c.n_prompt_token, c.prompt_token, "ChatEvent.prompt_token")
    decodedSHA256 =
      try Read.strings(c.n_decoded_sha256, c.decoded_sha256, "ChatEvent.decoded_sha256")
    resizedSHA256 =
      try Read.strings(c.n_resized_sha256, c.resized_sha256, "ChatEvent.resized_sha256")
    if c.has_seed != 0 { seed = c.seed }
  }

  func fill(_ c: inout Chiasm__V1__ChatEvent, _ memory: BumpMemory) {
    if !text.isEmpty { (c.has_text, c.text) = (1, memory.text(text)) }
    if !tokens.isEmpty { (c.n_token, c.token) = (tokens.count, memory.integers(tokens)) }
    if !logprobs.isEmpty { (c.n_logprob, c.logprob) = (logprobs.count, memory.messages(logprobs)) }
    if let finishReason { c.finish_reason = memory.string(finishReason) }
    if let usage { c.usage = memory.message(usage) }
    if let timings { c.timings = memory.message(timings) }
    if !promptTokens.isEmpty {
      (c.n_prompt_token, c.prompt_token) = (promptTokens.count, memory.integers(promptTokens))
    }
    if !decodedSHA256.isEmpty {
      (c.n_decoded_sha256, c.decoded_sha256) = (decodedSHA256.count, memory.strings(decodedSHA256))
    }
    if !resizedSHA256.isEmpty {
      (c.n_resized_sha256, c.resized_sha256) = (resizedSHA256.count, memory.strings(resizedSHA256))
    }
    if let seed { (c.has_seed, c.seed) = (1, seed) }
  }
}
