#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import HTTPTypes
import Hummingbird
import Logging
import Messages
import NIOCore
import Sequencer
import Text
import Transport

/// `POST /v1/chat/completions`.
struct ChatCompletions: Sendable {
  let gateway: GatewayService
  let options: HTTPOptions

  func handle(_ request: Request, _ context: GatewayContext) async throws -> Response {
    var request = request
    let body = try await request.collected(options)
    let asked = try JSON.decode(ChatCompletionRequest.self, from: body)
    if let model = asked.model, model != gateway.modelName {
      throw APIError(
        .notFound, "the model \(model) does not exist; this gateway serves \(gateway.modelName)",
        parameter: "model", code: "model_not_found")
    }
    try asked.check(options)
    let conversation = try Conversation(
      asked.messages, media: PictureSource(folder: options.mediaFolder))
    let requests = (0..<(asked.n ?? 1)).map {
      Payload(
        asked.chatRequest(conversation.turns, choice: $0), tensors: conversation.pictures)
    }
    let head = CompletionHead(
      id: "chatcmpl-\(String(UInt64.random(in: 0...UInt64.max), radix: 16))",
      created: time(nil), model: gateway.modelName)
    let answers = Answers(gateway, requests)
    // A client that goes away takes its answer's computing with it.
    let departure = try await context.departure()
    let call = departure.then { answers.cancel() }
    let ending = { @Sendable in departure.forget(call) }
    if asked.stream == true {
      return try await stream(
        answers, head, includesUsage: asked.streamOptions?.includeUsage == true, ending: ending)
    }
    defer { ending() }
    return JSON.response(try await whole(answers, head, choices: requests.count))
  }

  private func whole(
    _ answers: Answers, _ head: CompletionHead, choices: Int
  ) async throws -> ChatCompletion {
    var completion = ChatCompletion(
      head: head, choices: (0..<choices).map { ChatCompletion.Choice(index: $0) })
    for try await (index, event) in answers.events {
      completion.choices[index].message.content += event.text
      if !event.logprobs.isEmpty {
        let more = ChoiceLogprobs(event.logprobs, tokenizer: gateway.builder.tokenizer)
        if completion.choices[index].logprobs == nil {
          completion.choices[index].logprobs = more
        } else {
          completion.choices[index].logprobs?.content += more.content
        }
      }
      if let reason = event.finishReason { completion.choices[index].finishReason = reason }
      if let usage = event.usage { completion.usage.add(usage) }
    }
    return completion
  }

  /// Waits for the first event, so that what is wrong with the request is still a status.
  ///
  /// - Parameter ending: called when the stream ended.
  private func stream(
    _ answers: Answers, _ head: CompletionHead, includesUsage: Bool,
    ending: @escaping @Sendable () -> Void
  ) async throws -> Response {
    var iterator = answers.events.makeAsyncIterator()
    let first: (Int, ChatEvent)?
    do {
      first = try await iterator.next()
    } catch {
      ending()
      throw error
    }
    let tokenizer = gateway.builder.tokenizer
    let body = ResponseBody { writer in
      defer { ending() }
      var chunks = ChunkWriter(head: head, tokenizer: tokenizer, includesUsage: includesUsage)
      var texts = first.map { chunks.texts(of: $0.1, choice: $0.0) } ?? []
      do {
        for text in texts { try await writer.write(ByteBuffer(string: text)) }
        for try await (index, event) in answers.events {
          for text in chunks.texts(of: event, choice: index) {
            try await writer.write(ByteBuffer(string: text))
          }
        }
        texts = chunks.end()
      } catch let error as CancellationError {
        throw error
      } catch let error as ChannelError {
        throw error
      } catch {
        // The status is long sent: what went wrong is the stream's last word.
        texts = [EventStream.text(APIError(error).body), EventStream.done]
      }
      for text in texts { try await writer.write(ByteBuffer(string: text)) }
      try await writer.finish(nil)
    }
    return Response(
      status: .ok,
      headers: [
        .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache",
      ], body: body)
  }
}

/// The events of the answers to one request, each with the number of its answer.
struct Answers: Sendable {
  let events: AsyncThrowingStream<(Int, ChatEvent), any Error>
  private let continuation: AsyncThrowingStream<(Int, ChatEvent), any Error>.Continuation

  /// Begins at once. Who stops reading ends the answers.
  init(_ gateway: GatewayService, _ requests: [Payload<ChatRequest>]) {
    let (stream, continuation) = AsyncThrowingStream<(Int, ChatEvent), any Error>.makeStream()
    events = stream
    self.continuation = continuation
    // As long as the stream, which cancels it.
    let work = Task {
      do {
        try await withThrowingTaskGroup(of: Void.self) { group in
          for (index, request) in requests.enumerated() {
            group.addTask {
              try await gateway.chat(request) { continuation.yield((index, $0.message)) }
            }
          }
          try await group.waitForAll()
        }
        continuation.finish()
      } catch {
        continuation.finish(throwing: error)
      }
    }
    continuation.onTermination = { _ in work.cancel() }
  }

  /// Ends the answers for a reader that does not read any more.
  func cancel() { continuation.finish(throwing: CancellationError()) }
}

/// Turns events into what a streaming client reads.
struct ChunkWriter {
  let head: CompletionHead
  let tokenizer: Tokenizer
  let includesUsage: Bool
  private var begun: Set<Int> = []
  private var usage = CompletionUsage()

  init(head: CompletionHead, tokenizer: Tokenizer, includesUsage: Bool) {
    self.head = head
    self.tokenizer = tokenizer
    self.includesUsage = includesUsage
  }

  mutating func texts(of event: ChatEvent, choice index: Int) -> [String] {
    var texts: [String] = []
    if begun.insert(index).inserted {
      texts.append(
        text(.init(index: index, delta: .init(role: "assistant", content: ""))))
    }
    if !event.text.isEmpty || !event.logprobs.isEmpty {
      var choice = ChatCompletionChunk.Choice(index: index, delta: .init(content: event.text))
      if !event.logprobs.isEmpty {
        choice.logprobs = ChoiceLogprobs(event.logprobs, tokenizer: tokenizer)
      }
      texts.append(text(choice))
    }
    if let reason = event.finishReason {
      texts.append(text(.init(index: index, finishReason: reason)))
    }
    if let usage = event.usage { self.usage.add(usage) }
    return texts
  }

  func end() -> [String] {
    guard includesUsage else { return [EventStream.done] }
    let last = ChatCompletionChunk(head: head, choices: [], usage: .some(.some(usage)))
    return [EventStream.text(last), EventStream.done]
  }

  private func text(_ choice: ChatCompletionChunk.Choice) -> String {
    EventStream.text(
      ChatCompletionChunk(
        head: head, choices: [choice], usage: includesUsage ? .some(nil) : nil))
  }
}

/// Server-sent events, as the API sends them: data only.
enum EventStream {
  static let done = "data: [DONE]\n\n"

  static func text(_ value: some Encodable) -> String {
    "data: \(String(decoding: JSON.encode(value), as: UTF8.self))\n\n"
  }
}

extension Request {
  /// The whole body.
  ///
  /// - Throws: 413 for one that is too large, 408 for one that takes too long.
  mutating func collected(_ options: HTTPOptions) async throws -> ByteBuffer {
    if let length = headers[.contentLength].flatMap({ Int($0) }), length > options.bodyBytes {
      throw APIError(
        .contentTooLarge,
        "a body of \(length) bytes, at most \(options.bodyBytes) are taken")
    }
    let body = self.body
    let buffer = try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
      group.addTask { try await body.collect(upTo: options.bodyBytes) }
      group.addTask {
        try await Task.sleep(for: options.bodyTime)
        throw APIError(
          .requestTimeout, "the body did not come within \(options.bodyTime.components.seconds) s")
      }
      defer { group.cancelAll() }
      guard let buffer = try await group.next() else { throw CancellationError() }
      return buffer
    }
    return buffer
  }
}
