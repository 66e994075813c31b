import Messages
import Sequencer
import Testing
import Threads
import Transport

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

/// The gateway's executable on standard input and output.
@Suite(
  .timeLimit(.minutes(1)),
  .enabled(if: Executables.areBuilt, "the executables are not beside the test bundle"))
struct LineModeTests {
  /// Any line of output.
  struct Line: Decodable {
    struct Problem: Decodable {
      let code: String
      let message: String
    }

    var id: String?
    var delta: String?
    var error: Problem?
    var answer: ChatResult?

    private enum CodingKeys: String, CodingKey { case id, delta, error, text }

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: CodingKeys.self)
      id = try container.decodeIfPresent(String.self, forKey: .id)
      delta = try container.decodeIfPresent(String.self, forKey: .delta)
      error = try container.decodeIfPresent(Problem.self, forKey: .error)
      if container.contains(.text) { answer = try ChatResult(from: decoder) }
    }
  }

  /// What a gateway in line mode says to `input`, and its exit status.
  private func run(_ mesh: TestMesh, _ input: String) async throws -> (lines: [Line], status: Int32)
  {
    let folder = mesh.directory.path
    try Data(input.utf8).write(to: URL(fileURLWithPath: "\(folder)/input"))
    let command =
      Executables.gateway(.tiny, mesh.addresses) + " < '\(folder)/input' > '\(folder)/output'"
    let status = try await DedicatedThread(name: "shell").run { _ in system(command) }
    let output = try Data(contentsOf: URL(fileURLWithPath: "\(folder)/output"))
    let lines = output.split(separator: 0x0a, omittingEmptySubsequences: false)
    #expect(output.isEmpty || output.last == 0x0a, "the output ends in the middle of a line")
    return (try lines.dropLast().map { try JSONDecoder().decode(Line.self, from: $0) }, status)
  }

  @Test func `Every line is answered under its id`() async throws {
    let image = GoldenModel.tiny.path("image.jpg")
    let second = GoldenModel.tiny.path("second.jpg")
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      let input = """
        {"id": "text", "prompt": "Hello", "max_tokens": 12}
        {"id": "picture", "prompt": "Describe it.", "images": ["\(image)"], "max_tokens": 9, \
        "temperature": 1, "seed": 18446744073709551615, "top_k": 40, "top_p": 0.9, "min_p": 0.01, \
        "repetition_penalty": 1.1, "logprobs": 2}

        {"id": "turns", "messages": [{"role": "system", "content": "Be brief."}, \
        {"role": "user", "content": "<image> or <image>?"}], "images": ["\(image)", "\(second)"], \
        "max_tokens": 7}
        {"id": "stream", "prompt": "Hello", "max_tokens": 30, "stream": true}
        {"prompt": "No id.", "max_tokens": 3}
        """
      let (lines, exit) = try await run(mesh, input)
      #expect(exit == 0)
      #expect(lines.allSatisfy { $0.error == nil })
      func answer(_ id: String?) throws -> ChatResult {
        let answers = lines.filter { $0.id == id && $0.answer != nil }
        #expect(answers.count == 1)
        return try #require(answers.first?.answer)
      }
      func expected(
        _ turns: [ChatTurn], _ pictures: [Attachment], _ tokens: Int,
        _ sampling: SamplingParameters = SamplingParameters()
      ) async throws -> ChatResult {
        var settings = ChatSettings()
        settings.maxTokens = tokens
        settings.sampling = sampling
        return try await mesh.client.ask(turns, pictures: pictures, settings: settings)
      }
      func same(_ found: ChatResult, _ expected: ChatResult) {
        #expect(found.text == expected.text)
        #expect(found.tokenIDs == expected.tokenIDs)
        #expect(found.finishReason == expected.finishReason)
        #expect(found.usage == expected.usage)
        #expect(found.logprobs == expected.logprobs)
      }
      same(try answer("text"), try await expected([.user("Hello")], [], 12))
      let picture = try answer("picture")
      same(
        picture,
        try await expected(
          [.user("Describe it.")], GoldenModel.tiny.pictures("image.jpg"), 9,
          SamplingParameters(
            temperature: 1, topK: 40, topP: 0.9, minP: 0.01, repetitionPenalty: 1.1,
            seed: .max, topLogprobs: 2)))
      #expect(picture.seed == .max)
      #expect(picture.logprobs?.first?.top.count == 2)
      same(
        try answer("turns"),
        try await expected(
          [.system("Be brief."), .user("<image> or <image>?")],
          GoldenModel.tiny.pictures("image.jpg", "second.jpg"), 7))
      let stream = try answer("stream")
      same(stream, try await expected([.user("Hello")], [], 30))
      let deltas = lines.filter { $0.id == "stream" }.compactMap(\.delta)
      #expect(deltas.count > 5)
      #expect(deltas.joined() == stream.text)
      #expect(lines.count { $0.delta != nil } == deltas.count)
      same(try answer(nil), try await expected([.user("No id.")], [], 3))
    }
  }

  @Test func `A bad line is answered by an error and holds up nobody`() async throws {
    struct Bad {
      let line: String
      let id: String?
      let word: String
    }
    let bad = [
      Bad(line: "{", id: nil, word: "no request"),
      Bad(line: "{\"id\": \"unfinished\", ", id: nil, word: "no request"),
      Bad(line: "[1, 2]", id: nil, word: "no request"),
      Bad(line: "\u{7f}", id: nil, word: "no request"),
      Bad(line: #"{"id": "type", "prompt": 4}"#, id: "type", word: "prompt"),
      Bad(line: #"{"id": "nothing"}"#, id: "nothing", word: "\"messages\""),
      Bad(
        line: #"{"id": "both", "prompt": "a", "messages": []}"#, id: "both", word: "\"messages\""),
      Bad(
        line: #"{"id": "file", "prompt": "a", "images": ["/nowhere/at/all.jpg"]}"#, id: "file",
        word: "/nowhere/at/all.jpg"),
      Bad(
        line: #"{"id": "folder", "prompt": "a", "images": ["/"]}"#, id: "folder",
        word: "not a file"),
      Bad(
        line: #"{"id": "device", "prompt": "a", "images": ["/dev/zero"]}"#, id: "device",
        word: "not a file"),
      Bad(
        line: #"{"id": "tokens", "prompt": "a", "max_tokens": 100000}"#, id: "tokens",
        word: "context"),
      Bad(line: #"{"id": "top", "prompt": "a", "top_k": -1}"#, id: "top", word: "top_k"),
      Bad(
        line: #"{"id": "none", "prompt": "a", "max_tokens": -1}"#, id: "none",
        word: "max_tokens"),
      Bad(
        line: #"{"id": "role", "messages": [{"role": "tool", "content": "a"}]}"#, id: "role",
        word: "tool"),
      Bad(
        line: #"{"id": "long", "prompt": ""# + String(repeating: "a", count: 1 << 20) + "\"}",
        id: nil, word: "a line of more than"),
      Bad(line: String(repeating: "[", count: 50_000), id: nil, word: "no request"),
    ]
    try await withMesh { mesh in
      let good = #"{"id": "good", "prompt": "Hello", "max_tokens": 3}"#
      // The first line decides the mode, so that a good one leads.
      let input = ([good] + bad.map(\.line) + [good]).joined(separator: "\n")
      let (lines, exit) = try await run(mesh, input)
      #expect(exit == 0)
      #expect(lines.count == bad.count + 2)
      #expect(lines.count { $0.id == "good" && $0.answer?.tokenIDs.count == 3 } == 2)
      for bad in bad {
        #expect(
          lines.contains {
            $0.id == bad.id && $0.error?.code == "INVALID_ARGUMENT"
              && $0.error?.message.contains(bad.word) == true
          }, "nothing about \(bad.line.prefix(60))")
      }
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `More lines than the gateway lets wait are all answered`() async throws {
    try await withMesh { mesh in
      let count = GatewayLimits().running + GatewayLimits().waiting + 100
      let input = (0..<count).map { #"{"id": "\#($0)", "prompt": "Hello", "max_tokens": 1}"# }
      let (lines, exit) = try await run(mesh, input.joined(separator: "\n"))
      #expect(exit == 0)
      #expect(Set(lines.filter { $0.answer != nil }.compactMap(\.id)).count == count)
      #expect(lines.count == count)
    }
  }

  @Test func `No input is answered with nothing`() async throws {
    try await withMesh { mesh in
      let (lines, exit) = try await run(mesh, "")
      #expect(lines.isEmpty)
      #expect(exit == 0)
    }
  }

  @Test func `The same flag speaks the framed protocol`() async throws {
    try await withMesh(MeshPlan(visionStages: 2, languageStages: 2)) { mesh in
      let command = Executables.gateway(.tiny, mesh.addresses)
      let channel = Channel(.exec(command: command))
      let description = try await channel.call(Methods.Gateway.describe, DescribeRequest())
      #expect(description.message.stages.count == 5)

      let client = ChatClient(.exec(command: command))
      let turns = [ChatTurn.user("Describe it.")]
      let pictures = try GoldenModel.tiny.pictures("second.jpg")
      let expected = try GoldenModel.tiny.compute(turns, pictures, tokens: 11)
      let found = try await client.compute(turns, pictures, tokens: 11)
      #expect(found == expected)

      // A process that ends takes its sequences along.
      let long = ChatRequest(turns: turns, maxTokens: 3000, ignoreEnd: true)
      var reader = channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
      for _ in 0..<3 { _ = try await reader.next() }
      #expect(try await mesh.describe("language-1").sequences == 1)
      channel.close()
      withExtendedLifetime(reader) {}
      try await mesh.cachesAreEmpty()
      client.close()
    }
  }
}
