#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif
#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import CPlatform
import Messages
import Synchronization
import Threads
import Transport

/// The gateway for scripts: one JSON request a line on standard input, one JSON object a line
/// on standard output. Requests are answered as they get ready, in any order; `id` tells which.
public struct LineMode: Sendable {
  private let gateway: GatewayService

  /// Bytes of one line.
  static let lineLimit = 1 << 20

  public init(gateway: GatewayService) { self.gateway = gateway }

  /// Answers until standard input ends and the last answer is out. As many lines are under way
  /// as the gateway lets requests wait.
  ///
  /// - Throws: `CancellationError`.
  public func run() async throws {
    wire_ignore_broken_pipes()
    let reader = LineReader(limit: LineMode.lineLimit)
    let most = gateway.limits.waiting
    try await withThrowingTaskGroup(of: Void.self) { group in
      var underWay = 0
      while let line = try await reader.next() {
        switch line {
        case .text(let bytes):
          // Empty lines ask for nothing.
          if bytes.allSatisfy({ $0 == 0x20 || $0 == 0x0d }) { continue }
          if underWay == most {
            try await group.next()
            underWay -= 1
          }
          underWay += 1
          group.addTask { await answer(bytes) }
        case .tooLong(let limit):
          await StandardOutput.write(
            Failure(
              id: nil,
              error: RPCError(
                .invalidArgument,
                "a line of more than \(limit) bytes; send pictures as paths in \"images\"")))
        }
      }
      try await group.waitForAll()
    }
  }

  private func answer(_ line: [UInt8]) async {
    let request: LineRequest
    do {
      request = try LineRequest.decode(line)
    } catch {
      await StandardOutput.write(
        Failure(
          id: LineRequest.identifier(of: line),
          error: RPCError(.invalidArgument, "the line is no request: \(error.plain)")))
      return
    }
    do {
      let payload = try request.payload()
      let result = Mutex(ChatResult())
      try await gateway.chat(payload) { event in
        result.withLock { $0.add(event.message) }
        if request.stream == true, !event.message.text.isEmpty {
          await StandardOutput.write(Delta(id: request.id, delta: event.message.text))
        }
      }
      await StandardOutput.write(Answer(id: request.id, result: result.withLock { $0 }))
    } catch {
      await StandardOutput.write(Failure(id: request.id, error: RPCError(handlerError: error)))
    }
  }
}

/// One line of input.
struct LineRequest: Codable, Sendable {
  struct Turn: Codable, Sendable {
    var role: String
    var content: String
  }

  var id: Identifier?
  /// A single user turn; or `messages`.
  var prompt: String?
  var messages: [Turn]?
  /// Paths of JPEG or PNG files, in the order of their `<image>` placeholders.
  var images: [String]?
  var maxTokens: Int?
  var temperature: Float?
  var topK: Int?
  var topP: Float?
  var minP: Float?
  var repetitionPenalty: Float?
  var seed: UInt64?
  var stop: [String]?
  /// Token ids that end the answer, besides the model's own.
  var stopTokenIDs: [Int32]?
  /// Best log-probabilities of every token; absent: none.
  var logprobs: Int?
  /// Sends the text as it comes, before the whole answer.
  var stream: Bool?

  enum CodingKeys: String, CodingKey, CaseIterable {
    case id, prompt, messages, images, temperature, seed, stop, logprobs, stream
    case maxTokens = "max_tokens"
    case stopTokenIDs = "stop_token_ids"
    case topK = "top_k"
    case topP = "top_p"
    case minP = "min_p"
    case repetitionPenalty = "repetition_penalty"
  }

  /// What names a request in its answers: a string or a whole number, given back as it came.
  enum Identifier: Codable, Sendable, Equatable {
    case text(String)
    case number(Int)

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let number = try? container.decode(Int.self) {
        self = .number(number)
      } else {
        self = .text(try container.decode(String.self))
      }
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      switch self {
      case .text(let text): try container.encode(text)
      case .number(let number): try container.encode(number)
      }
    }
  }

  /// Reads a line; a key that nobody knows is an error, for it may be a misspelt one.
  static func decode(_ line: [UInt8]) throws -> LineRequest {
    let decoder = JSONDecoder()
    let keys = try decoder.decode(Keys.self, from: Data(line)).names
    let known = Set(CodingKeys.allCases.map(\.rawValue))
    if let stranger = keys.filter({ !known.contains($0) }).sorted().first {
      throw RPCError(
        .invalidArgument,
        "nothing is known of \"\(stranger)\"; there are \(known.sorted().joined(separator: ", "))")
    }
    return try decoder.decode(LineRequest.self, from: Data(line))
  }

  /// The id of a line that is no request otherwise.
  static func identifier(of line: [UInt8]) -> Identifier? {
    struct Named: Decodable { var id: Identifier? }
    return (try? JSONDecoder().decode(Named.self, from: Data(line)))?.id
  }

  /// The keys of an object.
  private struct Keys: Decodable {
    struct Key: CodingKey {
      let stringValue: String
      var intValue: Int? { nil }
      init(stringValue: String) { self.stringValue = stringValue }
      init?(intValue: Int) { nil }
    }

    let names: [String]

    init(from decoder: any Decoder) throws {
      names = try decoder.container(keyedBy: Key.self).allKeys.map(\.stringValue)
    }
  }

  func payload() throws -> Payload<ChatRequest> {
    var request = ChatRequest()
    switch (prompt, messages) {
    case (let prompt?, nil):
      request.turns = [ChatTurn(role: "user", text: prompt)]
    case (nil, let messages?):
      request.turns = messages.map { ChatTurn(role: $0.role, text: $0.content) }
    default:
      throw RPCError(.invalidArgument, "give one of \"prompt\" and \"messages\"")
    }
    guard (logprobs ?? 0) >= 0, (topK ?? 0) >= 0 else {
      throw RPCError(.invalidArgument, "\"top_k\" and \"logprobs\" cannot be negative")
    }
    request.sampling = SamplingParameters(
      temperature: temperature ?? 0, topK: topK ?? 0, topP: topP ?? 1, minP: minP ?? 0,
      repetitionPenalty: repetitionPenalty ?? 1, seed: seed, topLogprobs: logprobs)
    request.maxTokens = maxTokens
    request.stop = stop ?? []
    request.stopTokens = stopTokenIDs ?? []
    return Payload(
      request, tensors: try (images ?? []).map { try PictureFile.read($0) })
  }
}

private struct Delta: Encodable {
  let id: LineRequest.Identifier?
  let delta: String
}

private struct Answer: Encodable {
  let id: LineRequest.Identifier?
  let result: ChatResult

  private enum CodingKeys: String, CodingKey { case id }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encodeIfPresent(id, forKey: .id)
    try result.encode(to: encoder)
  }
}

private struct Failure: Encodable {
  struct Problem: Encodable {
    let code: String
    let message: String
  }

  let id: LineRequest.Identifier?
  let error: Problem

  init(id: LineRequest.Identifier?, error: RPCError) {
    self.id = id
    self.error = Problem(code: "\(error.code)", message: error.message)
  }
}

extension Error {
  /// A decoding error's own words instead of its dump.
  fileprivate var plain: String {
    if let error = self as? RPCError { return error.message }
    guard let error = self as? DecodingError else { return "\(self)" }
    switch error {
    case .typeMismatch(_, let context), .valueNotFound(_, let context),
      .keyNotFound(_, let context), .dataCorrupted(let context):
      let path = context.codingPath.map(\.stringValue).joined(separator: ".")
      return path.isEmpty ? context.debugDescription : "\(path): \(context.debugDescription)"
    @unknown default:
      return "\(error)"
    }
  }
}

/// Standard output, a whole line at a time.
enum StandardOutput {
  /// Whoever reads may take their time.
  private static let thread = DedicatedThread(name: "stdout")

  static func write(_ value: some Encodable) async {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let line = try? encoder.encode(value) else { return }
    let bytes = [UInt8](line) + [0x0a]
    // Cancelled when nobody waits for the line any more.
    try? await thread.runAbandonably { _ in put(bytes) }
  }

  private static func put(_ bytes: [UInt8]) {
    var written = 0
    while written < bytes.count {
      let count = bytes[written...].withUnsafeBytes {
        Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count)
      }
      if count < 0 && errno == EINTR { continue }
      // Nobody reads any more; the input will end too.
      guard count > 0 else { return }
      written += count
    }
  }
}
