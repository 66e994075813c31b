import Messages
import Transport

/// How an answer is to be made.
public struct ChatSettings: Sendable {
  public var sampling = SamplingParameters()
  public var maxTokens: Int?
  public var stop: [String] = []
  public var stopTokens: [Int32] = []
  public var ignoresEnd = false

  public init() {}
}

/// A gateway as a client sees it.
public struct ChatClient: Sendable {
  private let channel: Channel

  public init(_ gateway: Endpoint) { channel = Channel(gateway) }

  /// Asks, hands on the text as it comes, and returns the whole answer.
  ///
  /// - Throws: `RPCError` of the gateway.
  public func ask(
    _ turns: [ChatTurn], pictures: [Attachment] = [], settings: ChatSettings = ChatSettings(),
    text: (String) -> Void = { _ in }
  ) async throws -> ChatResult {
    var result = ChatResult()
    for try await event in channel.stream(
      Methods.Gateway.chat, request(turns, settings), tensors: pictures)
    {
      result.add(event.message)
      if !event.message.text.isEmpty { text(event.message.text) }
    }
    return result
  }

  /// Asks for everything that the stages computed on the way.
  public func probe(
    _ turns: [ChatTurn], pictures: [Attachment], settings: ChatSettings
  ) async throws -> (ChatResult, [Payload<ChatEvent>]) {
    var request = request(turns, settings)
    request.capture = true
    var result = ChatResult()
    var events: [Payload<ChatEvent>] = []
    for try await event in channel.stream(Methods.Gateway.chat, request, tensors: pictures) {
      result.add(event.message)
      if !event.tensors.isEmpty || !event.message.promptTokens.isEmpty {
        events.append(event.outOfArena())
      }
    }
    return (result, events)
  }

  /// What the gateway serves, and how its stages are.
  public func describe() async throws -> GatewayDescription {
    try await channel.call(
      Methods.Gateway.describe, DescribeRequest(), deadline: .after(.seconds(5))
    ).message
  }

  public func close() { channel.close() }

  private func request(_ turns: [ChatTurn], _ settings: ChatSettings) -> ChatRequest {
    var request = ChatRequest()
    request.turns = turns
    request.sampling = settings.sampling
    request.maxTokens = settings.maxTokens
    request.stop = settings.stop
    request.stopTokens = settings.stopTokens
    request.ignoreEnd = settings.ignoresEnd
    return request
  }
}
