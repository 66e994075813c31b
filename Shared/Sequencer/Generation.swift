import Messages
import Text

/// The state of one answer: what of the prompt is in the caches, what was generated, what text
/// is certain, and whether it is over.
struct Generation: Sendable {
  let id: UInt64
  let prompt: Prompt
  let options: GenerationOptions

  /// Positions that the language stages hold in their caches.
  private(set) var cached = 0
  private(set) var generated: [Int32] = []
  private(set) var finishReason: FinishReason?

  private var detokenizer: StreamingDetokenizer
  private var stops: StopStrings
  /// Whether a stop string ended the text.
  private var isCut = false

  init(id: UInt64, prompt: Prompt, options: GenerationOptions, tokenizer: Tokenizer) {
    self.id = id
    self.prompt = prompt
    self.options = options
    detokenizer = StreamingDetokenizer(tokenizer: tokenizer)
    stops = StopStrings(options.stopStrings)
  }

  var isPrefilling: Bool { cached < prompt.tokens.count }

  /// Positions the answer can come to take in the caches.
  var reserve: Int { prompt.tokens.count + options.maxTokens }

  /// The next chunk of the prompt, of at most `limit` tokens, or the last generated token.
  func nextStep(limit: Int) -> SequenceStep {
    var step = SequenceStep()
    step.sequence = id
    step.position = cached
    step.promptTokens = prompt.tokens.count
    if cached == 0 { step.reserve = reserve }
    if isPrefilling {
      let end = min(prompt.tokens.count, cached + limit)
      step.tokens = Array(prompt.tokens[cached..<end])
      let rows = prompt.imageRows[cached..<end]
      if rows.contains(where: { $0 != 0 }) { step.imageRows = Array(rows) }
      step.sample = end == prompt.tokens.count
      step.captureLogits = options.captures
    } else {
      step.tokens = [generated[generated.count - 1]]
      step.sample = true
    }
    if step.sample { step.sampling = options.sampling }
    return step
  }

  /// Takes in what a step of `count` tokens came to.
  ///
  /// - Returns: the event to send, or nil when the step only moved the prompt on.
  mutating func accept(_ result: SequenceResult, of count: Int) -> ChatEvent? {
    cached += count
    guard let token = result.token else { return nil }
    generated.append(token)

    var event = ChatEvent()
    event.tokens = [token]
    if options.sampling.topLogprobs != nil {
      var logprob = ChatLogprob()
      logprob.chosen = TokenLogprob(token: token, logprob: result.logprob ?? 0)
      logprob.top = result.top
      event.logprobs = [logprob]
    }

    let endsByToken =
      options.stopTokens.contains(token)
      || (!options.ignoresEnd && options.endTokens.contains(token))
    var text = ""
    if endsByToken {
      finishReason = .stop
    } else {
      text += emit(detokenizer.append(Int(token)))
      if finishReason == nil && generated.count >= options.maxTokens { finishReason = .length }
    }
    // What was held back for the rest of a character, then for the rest of a stop string.
    if finishReason != nil && !isCut { text += emit(detokenizer.finish()) }
    if finishReason != nil && !isCut { text += stops.finish() }
    event.text = text
    return event
  }

  /// The part of new text that is certain to come before any stop string.
  private mutating func emit(_ text: String) -> String {
    let (certain, stopped) = stops.push(text)
    if stopped {
      finishReason = .stop
      isCut = true
    }
    return certain
  }
}

/// Why an answer ended, in the words of the OpenAI API.
public enum FinishReason: String, Sendable {
  /// An end token, a stop token or a stop string.
  case stop
  /// `max_tokens`, or the end of the context.
  case length
}

/// What a request asked for besides its prompt, with every default filled in.
struct GenerationOptions: Sendable {
  var sampling: Messages.SamplingParameters
  var maxTokens: Int
  var stopStrings: [String]
  var stopTokens: Set<Int32>
  /// The model's own end tokens.
  var endTokens: Set<Int32>
  var ignoresEnd: Bool
  var captures: Bool
}
