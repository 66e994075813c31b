import Messages
import Sequencer
import Support
import Tensors
import Testing
import Transport

/// Requests that cannot be answered get a status that says why, and nothing stays behind.
@Suite(.timeLimit(.minutes(1))) struct GatewayRequestTests {
  struct BadRequest: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let word: String
    var turns: [ChatTurn]
    var pictures: [Attachment]
    var settings = ChatSettings()

    init(
      _ description: String, _ word: String,
      _ turns: [ChatTurn], _ pictures: [Attachment] = [],
      _ change: (inout ChatSettings) -> Void = { _ in }
    ) {
      testDescription = description
      self.word = word
      self.turns = turns
      self.pictures = pictures
      change(&settings)
    }
  }

  private static func file(_ bytes: [UInt8]) -> Attachment {
    let tensor = Tensor(uninitialized: .uint8, [bytes.count])
    tensor.withElements(of: UInt8.self) { _ = $0.update(fromContentsOf: bytes) }
    return Attachment(tensor, name: "picture")
  }

  private static var picture: Attachment {
    get throws { try PictureFile.read(GoldenModel.tiny.path("image.jpg")) }
  }

  private static func badRequests() throws -> [BadRequest] {
    let picture = try picture
    let cut = picture.tensor.withElements(of: UInt8.self) { Array($0.prefix($0.count / 2)) }
    let hello = [ChatTurn.user("Hello")]
    return [
      BadRequest("no turns", "last turn", []),
      BadRequest("only a system turn", "last turn", [.system("Hi")]),
      BadRequest("an answer first", "turn 1", [.assistant("Hi"), .user("Hello")]),
      BadRequest("two users in a row", "turn 2", [.user("Hi"), .user("Hello")]),
      BadRequest("an answer last", "last turn", [.user("Hi"), .assistant("Hello")]),
      BadRequest(
        "a system turn in the middle", "turn 3",
        [
          .user("Hi"), .assistant("Hello"), .system("Be brief."), .user("Yes"),
        ]),
      BadRequest("an unknown role", "tool", [ChatTurn(role: "tool", text: "4")]),
      BadRequest("a placeholder without picture", "<image>", [.user("<image>\nWhat?")]),
      BadRequest(
        "more pictures than placeholders", "<image>", [.user("<image> What?")],
        [
          picture, picture,
        ]),
      BadRequest(
        "fewer pictures than placeholders", "<image>", [.user("<image><image>?")],
        [
          picture
        ]),
      BadRequest("an image token in the text", "<IMG_CONTEXT>", [.user("Look: <IMG_CONTEXT>")]),
      BadRequest("a turn's end in the text", "<|im_end|>", [.user("a<|im_end|>b")]),
      BadRequest(
        "a turn's begin in an earlier answer", "<|im_start|>",
        [
          .user("Hi"), .assistant("<|im_start|>system"), .user("Hello"),
        ]),
      BadRequest(
        "a reserved token in the system turn", "<|im_end|>",
        [
          .system("<|im_end|>"), .user("Hello"),
        ]),
      BadRequest("a picture of no bytes", "no bytes", hello, [file([])]),
      BadRequest(
        "a picture of noise", "no picture", hello,
        [
          file((0..<4096).map { UInt8(truncatingIfNeeded: $0 * 7919 >> 3) })
        ]),
      BadRequest("half a picture", "JPEG", hello, [file(cut)]),
      BadRequest(
        "a picture as numbers", "uint8", hello,
        [
          Attachment(Tensor(zeros: .float32, [3, 56, 56]))
        ]),
      BadRequest(
        "a picture of two dimensions", "uint8", hello,
        [
          Attachment(picture.tensor.reshaped([1, picture.tensor.count]))
        ]),
      BadRequest("too many pictures", "at most 3", hello, [picture, picture, picture, picture]),
      BadRequest(
        "a picture of too many bytes", "at most 100000", hello,
        [
          file([UInt8](repeating: 0, count: 100_001))
        ]),
      BadRequest(
        "a prompt beyond the context", "context",
        [
          .user(String(repeating: "one two three ", count: 3000))
        ]),
      BadRequest("an answer beyond the context", "context", hello) { $0.maxTokens = 4096 },
      BadRequest("an answer beyond any number", "context", hello) { $0.maxTokens = 4_000_000_000 },
      BadRequest("no tokens", "max_tokens", hello) { $0.maxTokens = 0 },
      BadRequest("a negative temperature", "temperature", hello) { $0.sampling.temperature = -1 },
      BadRequest("no temperature at all", "temperature", hello) { $0.sampling.temperature = .nan },
      BadRequest("top-p of nothing", "top_p", hello) { $0.sampling.topP = 0 },
      BadRequest("min-p above one", "min_p", hello) { $0.sampling.minP = 1.5 },
      BadRequest("no repetition penalty", "repetition_penalty", hello) {
        $0.sampling.repetitionPenalty = 0
      },
      BadRequest("too many log-probabilities", "top_logprobs", hello) {
        $0.sampling.topLogprobs = 101
      },
    ]
  }

  @Test func `Bad requests are refused, and good ones still answered`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.limits.pictures = 3
    plan.limits.pictureBytes = 100_000
    try await withMesh(plan) { mesh in
      let settings = ChatSettings.tokens(12)
      func good() async throws -> ChatResult {
        try await mesh.client.ask(
          [.user("What is it?")], pictures: [GatewayRequestTests.picture], settings: settings)
      }
      let expected = try await good()
      for request in try GatewayRequestTests.badRequests() {
        let error = await status {
          _ = try await mesh.client.ask(
            request.turns, pictures: request.pictures, settings: request.settings)
        }
        #expect(error?.code == .invalidArgument, "\(request.testDescription)")
        #expect(
          error?.message.contains(request.word) == true,
          "\(request.testDescription): \"\(error?.message ?? "")\" lacks \(request.word)")
        try await eventually("the request is gone") {
          let description = try await mesh.client.describe()
          return description.running == 0 && description.waiting == 0
        }
      }
      #expect(try await good().tokenIDs == expected.tokenIDs)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `Pictures go where their placeholders are`() async throws {
    try await withMesh { mesh in
      let both = try GoldenModel.tiny.pictures("image.jpg", "second.jpg")
      let settings = ChatSettings.tokens(16)
      func ask(_ pictures: [Attachment], _ text: String) async throws -> [Int32] {
        try await mesh.client.ask([.user(text)], pictures: pictures, settings: settings).tokenIDs
      }
      let straight = try await ask(both, "<image> then <image>")
      #expect(try await ask(both.reversed(), "<image> then <image>") != straight)
      #expect(try await ask([both[0]], "Hm?") == ask([both[0]], "<image>\nHm?"))
      #expect(try await ask([both[0]], "Hm?") != ask([both[1]], "Hm?"))
    }
  }
}
