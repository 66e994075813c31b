import Messages
import Text

/// What answers to one request have in common.
struct CompletionHead: Sendable {
  let id: String
  let created: Int
  let model: String
}

struct CompletionUsage: Encodable, Sendable {
  var promptTokens = 0
  var completionTokens = 0
  var totalTokens: Int { promptTokens + completionTokens }

  enum CodingKeys: String, CodingKey {
    case promptTokens = "prompt_tokens"
    case completionTokens = "completion_tokens"
    case totalTokens = "total_tokens"
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(promptTokens, forKey: .promptTokens)
    try container.encode(completionTokens, forKey: .completionTokens)
    try container.encode(totalTokens, forKey: .totalTokens)
  }

  /// The prompt counts once, however many answers there are.
  mutating func add(_ usage: Usage) {
    promptTokens = usage.promptTokens
    completionTokens += usage.completionTokens
  }
}

/// Log-probabilities of tokens, in the API's form.
struct ChoiceLogprobs: Encodable, Sendable {
  struct Entry: Encodable, Sendable {
    let token: String
    let logprob: Float
    let bytes: [UInt8]
  }

  struct Position: Encodable, Sendable {
    let entry: Entry
    let top: [Entry]

    enum CodingKeys: String, CodingKey {
      case token, logprob, bytes
      case top = "top_logprobs"
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(entry.token, forKey: .token)
      try container.encode(entry.logprob, forKey: .logprob)
      try container.encode(entry.bytes, forKey: .bytes)
      try container.encode(top, forKey: .top)
    }
  }

  var content: [Position] = []

  init(_ logprobs: [ChatLogprob], tokenizer: Tokenizer) {
    func entry(_ value: TokenLogprob) -> Entry {
      let bytes = tokenizer.bytes(of: Int(value.token))
      // JSON knows no infinity; the API's own bound for what cannot be is -9999.
      return Entry(
        token: String(decoding: bytes, as: UTF8.self), logprob: max(value.logprob, -9999),
        bytes: bytes)
    }
    content = logprobs.map { Position(entry: entry($0.chosen), top: $0.top.map(entry)) }
  }
}

/// A whole answer.
struct ChatCompletion: Encodable {
  struct Message: Encodable {
    let role = "assistant"
    var content = ""
    enum CodingKeys: String, CodingKey { case role, content }
  }

  struct Choice: Encodable {
    let index: Int
    var message = Message()
    var logprobs: ChoiceLogprobs?
    var finishReason: String?

    enum CodingKeys: String, CodingKey {
      case index, message, logprobs
      case finishReason = "finish_reason"
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(index, forKey: .index)
      try container.encode(message, forKey: .message)
      try container.encode(logprobs, forKey: .logprobs)
      try container.encode(finishReason, forKey: .finishReason)
    }
  }

  let head: CompletionHead
  var choices: [Choice]
  var usage = CompletionUsage()

  enum CodingKeys: String, CodingKey { case id, object, created, model, choices, usage }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(head.id, forKey: .id)
    try container.encode("chat.completion", forKey: .object)
    try container.encode(head.created, forKey: .created)
    try container.encode(head.model, forKey: .model)
    try container.encode(choices, forKey: .choices)
    try container.encode(usage, forKey: .usage)
  }
}

/// A piece of a streamed answer.
struct ChatCompletionChunk: Encodable {
  struct Delta: Encodable {
    var role: String?
    var content: String?
  }

  struct Choice: Encodable {
    let index: Int
    var delta = Delta()
    var logprobs: ChoiceLogprobs?
    var finishReason: String?

    enum CodingKeys: String, CodingKey {
      case index, delta, logprobs
      case finishReason = "finish_reason"
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(index, forKey: .index)
      try container.encode(delta, forKey: .delta)
      try container.encode(logprobs, forKey: .logprobs)
      try container.encode(finishReason, forKey: .finishReason)
    }
  }

  let head: CompletionHead
  var choices: [Choice]
  /// Absent unless usage was asked for; null then in all chunks but the last.
  var usage: CompletionUsage??

  enum CodingKeys: String, CodingKey { case id, object, created, model, choices, usage }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(head.id, forKey: .id)
    try container.encode("chat.completion.chunk", forKey: .object)
    try container.encode(head.created, forKey: .created)
    try container.encode(head.model, forKey: .model)
    try container.encode(choices, forKey: .choices)
    if let usage { try container.encode(usage, forKey: .usage) }
  }
}
