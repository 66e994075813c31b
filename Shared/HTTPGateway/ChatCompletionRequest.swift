import Messages
import Transport

/// The body of `POST /v1/chat/completions`, with vLLM's additions. Fields that nobody knows are
/// passed over, as OpenAI's and vLLM's servers do.
struct ChatCompletionRequest: Decodable {
  struct Turn: Decodable {
    var role: String
    var content: Content?
  }

  /// A text, or parts in order.
  enum Content: Decodable {
    case text(String)
    case parts([Part])

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let text = try? container.decode(String.self) {
        self = .text(text)
      } else {
        self = .parts(try container.decode([Part].self))
      }
    }
  }

  enum Part: Decodable {
    case text(String)
    case picture(url: String)

    private enum CodingKeys: String, CodingKey {
      case type, text
      case imageURL = "image_url"
    }

    private struct Address: Decodable { var url: String }

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      switch try container.decode(String.self, forKey: .type) {
      case "text":
        self = .text(try container.decode(String.self, forKey: .text))
      case "image_url":
        // Some clients give the address itself.
        if let url = try? container.decode(String.self, forKey: .imageURL) {
          self = .picture(url: url)
        } else {
          self = .picture(url: try container.decode(Address.self, forKey: .imageURL).url)
        }
      case let other:
        throw DecodingError.dataCorruptedError(
          forKey: .type, in: container,
          debugDescription: "\(other) is no kind of content here; there are text and image_url")
      }
    }
  }

  struct StreamOptions: Decodable {
    var includeUsage: Bool?
    enum CodingKeys: String, CodingKey { case includeUsage = "include_usage" }
  }

  struct ResponseFormat: Decodable { var type: String }

  /// One text or several.
  struct Stop: Decodable {
    var texts: [String]

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let text = try? container.decode(String.self) {
        texts = [text]
      } else {
        texts = try container.decode([String].self)
      }
    }
  }

  /// What is only looked at for being there.
  struct Anything: Decodable {
    init(from decoder: any Decoder) throws {}
  }

  var model: String?
  var messages: [Turn]
  var stream: Bool?
  var streamOptions: StreamOptions?
  var n: Int?
  var stop: Stop?
  var seed: Int64?
  var maxTokens: Int?
  var maxCompletionTokens: Int?
  var temperature: Float?
  var topP: Float?
  var topK: Int?
  var minP: Float?
  var repetitionPenalty: Float?
  var logprobs: Bool?
  var topLogprobs: Int?
  var stopTokenIDs: [Int32]?
  var ignoreEnd: Bool?
  var presencePenalty: Float?
  var frequencyPenalty: Float?
  var logitBias: [String: Float]?
  var responseFormat: ResponseFormat?
  var tools: [Anything]?

  enum CodingKeys: String, CodingKey {
    case model, messages, stream, n, stop, seed, temperature, logprobs, tools
    case streamOptions = "stream_options"
    case maxTokens = "max_tokens"
    case maxCompletionTokens = "max_completion_tokens"
    case topP = "top_p"
    case topK = "top_k"
    case minP = "min_p"
    case repetitionPenalty = "repetition_penalty"
    case topLogprobs = "top_logprobs"
    case stopTokenIDs = "stop_token_ids"
    case ignoreEnd = "ignore_eos"
    case presencePenalty = "presence_penalty"
    case frequencyPenalty = "frequency_penalty"
    case logitBias = "logit_bias"
    case responseFormat = "response_format"
  }

  static let maximumTopLogprobs = 20
  static let maximumStops = 64

  /// Refuses what this gateway cannot do, rather than answer as if it had not been asked for.
  ///
  /// - Throws: 400, naming the field.
  func check(_ options: HTTPOptions) throws {
    func require(_ holds: Bool, _ parameter: String, _ message: @autoclosure () -> String) throws {
      guard holds else { throw APIError.invalid(parameter, message()) }
    }
    func range(_ value: Float?, _ range: ClosedRange<Float>, _ name: String) throws {
      guard let value else { return }
      try require(
        range.contains(value), name,
        "\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
    }
    try require(!messages.isEmpty, "messages", "messages is empty; ask something")
    try require(
      (1...options.choices).contains(n ?? 1), "n",
      "n is \(n ?? 1), expected 1 to \(options.choices)")
    try range(temperature, 0...2, "temperature")
    try range(topP, 0...1, "top_p")
    try require(topP != 0, "top_p", "top_p is 0, expected more")
    try range(minP, 0...1, "min_p")
    try require(
      (topK ?? 0) >= -1, "top_k", "top_k is \(topK ?? 0), expected -1 or 0 (off), or more")
    try require(
      (repetitionPenalty ?? 1) > 0, "repetition_penalty", "repetition_penalty must be above 0")
    try require(
      (0...Self.maximumTopLogprobs).contains(topLogprobs ?? 0), "top_logprobs",
      "top_logprobs is \(topLogprobs ?? 0), expected 0 to \(Self.maximumTopLogprobs)")
    try require(
      topLogprobs == nil || logprobs == true, "top_logprobs", "top_logprobs needs logprobs: true")
    try require(
      (stop?.texts.count ?? 0) <= Self.maximumStops, "stop",
      "stop has \(stop?.texts.count ?? 0) texts, at most \(Self.maximumStops) are taken")
    try require(stop?.texts.contains("") != true, "stop", "a text in stop is empty")
    let tokens = maxCompletionTokens ?? maxTokens ?? 1
    try require(
      tokens > 0 && tokens <= Int(Int32.max),
      maxCompletionTokens == nil ? "max_tokens" : "max_completion_tokens",
      "the answer cannot have \(tokens) tokens")
    try require(
      streamOptions == nil || stream == true, "stream_options", "stream_options needs stream: true")
    let missing: [(Bool, String)] = [
      (presencePenalty ?? 0 != 0, "presence_penalty"),
      (frequencyPenalty ?? 0 != 0, "frequency_penalty"),
      (logitBias?.isEmpty == false, "logit_bias"),
      (responseFormat.map { $0.type != "text" } ?? false, "response_format"),
      (tools?.isEmpty == false, "tools"),
    ]
    if let (_, name) = missing.first(where: \.0) {
      throw APIError.invalid(name, "\(name) is not supported by this gateway; leave it out")
    }
  }

  /// The chat request of one of the `n` answers.
  ///
  /// - Throws: 400 for turns that cannot be.
  func chatRequest(_ turns: [ChatTurn], choice: Int) -> ChatRequest {
    var request = ChatRequest()
    request.turns = turns
    request.sampling = SamplingParameters(
      temperature: temperature ?? 0, topK: max(0, topK ?? 0), topP: topP ?? 1, minP: minP ?? 0,
      repetitionPenalty: repetitionPenalty ?? 1,
      seed: seed.map { UInt64(bitPattern: $0) &+ UInt64(choice) },
      topLogprobs: logprobs == true ? topLogprobs ?? 0 : nil)
    request.maxTokens = maxCompletionTokens ?? maxTokens
    request.stop = stop?.texts ?? []
    request.stopTokens = stopTokenIDs ?? []
    request.ignoreEnd = ignoreEnd ?? false
    return request
  }
}
