import Messages
import Transport

/// A whole answer as scripts read it: one JSON object.
public struct ChatResult: Codable, Sendable, Equatable {
  public var text = ""
  /// Every generated token, the end token included.
  public var tokenIDs: [Int32] = []
  /// "stop" or "length".
  public var finishReason = ""
  public var usage = Usage()
  public var timings = Timings()
  /// For each token its log-probability and the best ones, where they were asked for.
  public var logprobs: [Logprob]?
  /// The seed that gives the same answer again.
  public var seed: UInt64?

  enum CodingKeys: String, CodingKey {
    case text, usage, timings, logprobs, seed
    case tokenIDs = "token_ids"
    case finishReason = "finish_reason"
  }

  public struct Usage: Codable, Sendable, Equatable {
    public var promptTokens = 0
    public var completionTokens = 0
    public var imageTokens = 0

    enum CodingKeys: String, CodingKey {
      case promptTokens = "prompt_tokens"
      case completionTokens = "completion_tokens"
      case imageTokens = "image_tokens"
    }
  }

  /// In milliseconds.
  public struct Timings: Codable, Sendable, Equatable {
    public var queue = 0.0
    public var image = 0.0
    public var prefill = 0.0
    public var decode = 0.0
    public var total = 0.0

    enum CodingKeys: String, CodingKey {
      case queue = "queue_ms"
      case image = "image_ms"
      case prefill = "prefill_ms"
      case decode = "decode_ms"
      case total = "total_ms"
    }
  }

  public struct Logprob: Codable, Sendable, Equatable {
    public var token: Int32
    public var logprob: Float
    public var top: [Entry]

    public struct Entry: Codable, Sendable, Equatable {
      public var token: Int32
      public var logprob: Float
    }
  }

  public init() {}

  /// Takes in the next event of the answer.
  public mutating func add(_ event: ChatEvent) {
    text += event.text
    tokenIDs += event.tokens
    if let seed = event.seed { self.seed = seed }
    if let reason = event.finishReason { finishReason = reason }
    if let usage = event.usage {
      self.usage.promptTokens = usage.promptTokens
      self.usage.completionTokens = usage.completionTokens
      self.usage.imageTokens = usage.imageTokens
    }
    if let timings = event.timings {
      self.timings.queue = timings.queue
      self.timings.image = timings.image
      self.timings.prefill = timings.prefill
      self.timings.decode = timings.decode
      self.timings.total = timings.total
    }
    for logprob in event.logprobs {
      logprobs =
        (logprobs ?? []) + [
          Logprob(
            token: logprob.chosen.token, logprob: logprob.chosen.logprob,
            top: logprob.top.map { Logprob.Entry(token: $0.token, logprob: $0.logprob) })
        ]
    }
  }
}
