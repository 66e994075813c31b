import InternVL
import Kernels
import Messages
import Sampling
import Sequencer
import Testing

/// As the gateway is asked; the sampler has a type of that name, too.
typealias SamplingParameters = Messages.SamplingParameters

/// An answer does not depend on what else the mesh works on.
@Suite(.timeLimit(.minutes(1))) struct CompanyTests {
  /// A request, by what it stands for among the others.
  struct Request: Sendable {
    var turns: [ChatTurn]
    var pictures: [String] = []
    var settings = ChatSettings()

    init(_ text: String, _ pictures: [String] = [], tokens: Int, _ sampling: SamplingParameters) {
      turns = [.user(text)]
      self.pictures = pictures
      settings.maxTokens = tokens
      settings.sampling = sampling
      settings.ignoresEnd = true
    }

    func ask(_ client: ChatClient) async throws -> Answer {
      Answer(
        try await client.ask(
          turns, pictures: pictures.flatMap { try GoldenModel.tiny.pictures($0) },
          settings: settings))
    }
  }

  /// All of an answer but the time it took.
  struct Answer: Equatable, Sendable {
    let text: String
    let tokens: [Int32]
    let finishReason: String
    let usage: ChatResult.Usage
    let seed: UInt64?
    /// Tokens and the bits of their log-probabilities, the chosen one first.
    let logprobs: [[UInt32]]?

    init(_ result: ChatResult) {
      text = result.text
      tokens = result.tokenIDs
      finishReason = result.finishReason
      usage = result.usage
      seed = result.seed
      logprobs = result.logprobs?.map { entry in
        [UInt32(bitPattern: entry.token), entry.logprob.bitPattern]
          + entry.top.flatMap { [UInt32(bitPattern: $0.token), $0.logprob.bitPattern] }
      }
    }
  }

  static let requests: [Request] = [
    Request("Hello", tokens: 40, SamplingParameters(seed: 1)),
    Request("Describe it.", ["image.jpg"], tokens: 33, SamplingParameters(seed: 1, topLogprobs: 3)),
    Request(
      "Describe it.", ["second.jpg"], tokens: 21, SamplingParameters(temperature: 1, seed: 5)),
    Request(
      "Compare <image> with <image>.", ["image.jpg", "second.jpg"], tokens: 17,
      SamplingParameters(temperature: 0.8, topK: 20, seed: 6, topLogprobs: 0)),
    Request(
      String(repeating: "A long story about a small house. ", count: 9), tokens: 12,
      SamplingParameters(temperature: 1.3, topP: 0.8, seed: 7)),
    Request("x", tokens: 60, SamplingParameters(temperature: 1, minP: 0.1, seed: 8)),
    Request(
      "Count.", tokens: 50, SamplingParameters(repetitionPenalty: 1.4, seed: 1, topLogprobs: 5)),
    Request(
      "And this?", ["second.jpg"], tokens: 29,
      SamplingParameters(
        temperature: 0.9, topK: 50, topP: 0.95, minP: 0.02, repetitionPenalty: 1.2, seed: 9,
        topLogprobs: 2)),
    Request("Hello", tokens: 1, SamplingParameters(temperature: 2, seed: 10)),
    Request("Hello", tokens: 64, SamplingParameters(temperature: 2, seed: 11)),
  ]

  private func plan(stepTokens: Int, threads: Int) -> MeshPlan {
    var plan = MeshPlan(visionStages: 2, languageStages: 2)
    plan.limits.stepTokens = stepTokens
    plan.threads = threads
    return plan
  }

  /// The requests one at a time.
  private func alone() async throws -> [Answer] {
    try await withMesh(plan(stepTokens: 256, threads: 1)) { mesh in
      var answers: [Answer] = []
      for request in CompanyTests.requests { answers.append(try await request.ask(mesh.client)) }
      return answers
    }
  }

  /// The requests all at once.
  private func together(_ client: ChatClient) async throws -> [Answer?] {
    try await withThrowingTaskGroup(of: (Int, Answer).self) { group in
      for (index, request) in CompanyTests.requests.enumerated() {
        group.addTask { (index, try await request.ask(client)) }
      }
      var answers = [Answer?](repeating: nil, count: CompanyTests.requests.count)
      for try await (index, answer) in group { answers[index] = answer }
      return answers
    }
  }

  @Test(arguments: [7, 256], [1, 3])
  func `Ten answers at once are those of one at a time`(stepTokens: Int, threads: Int) async throws
  {
    let expected = try await alone()
    for (request, answer) in zip(CompanyTests.requests, expected) {
      #expect(answer.tokens.count == request.settings.maxTokens)
      #expect(answer.finishReason == "length")
      #expect(answer.seed == request.settings.sampling.seed)
      #expect(
        answer.logprobs?.count
          == request.settings.sampling.topLogprobs.map { _ in
            answer.tokens.count
          })
    }
    try await withMesh(plan(stepTokens: stepTokens, threads: threads)) { mesh in
      for round in 1...3 {
        let found = try await together(mesh.client)
        for (index, answer) in expected.enumerated() {
          #expect(found[index] == answer, "request \(index), round \(round)")
        }
      }
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `A greedy answer is the model's`() async throws {
    let turns = [ChatTurn.user("Describe it.")]
    let pictures = try GoldenModel.tiny.pictures("second.jpg")
    let expected = try GoldenModel.tiny.compute(turns, pictures, tokens: 30)
    try await withMesh { mesh in
      let settings = ChatSettings.tokens(30)
      let answer = try await mesh.client.ask(turns, pictures: pictures, settings: settings)
      #expect(answer.tokenIDs == expected.tokens)
    }
  }

  @Test func `A sampled answer is the sampler's over the model's logits`() async throws {
    let parameters = Sampling.SamplingParameters(
      temperature: 0.9, topK: 40, topP: 0.95, repetitionPenalty: 1.7, seed: 12, topLogprobs: 3)
    let count = 48
    let builder = try PromptBuilder(modelFolder: GoldenModel.tiny.folder)
    let prompt = try builder.build(turns: [.user("Hello")], files: [])
    let model = try InternVLModel(
      folder: GoldenModel.tiny.folder, device: CPUDevice(threads: 1), cacheTokens: 256)
    let logits = try model.prefill(0, ids: prompt.tokens)
    var last = logits[prompt.tokens.count - 1]
    var expected: [SampledToken] = []
    while true {
      let sampled = try last.withElements(of: Float.self) {
        try Sampler.sample(
          UnsafeBufferPointer($0), parameters: parameters, generated: expected.map(\.token),
          step: expected.count)
      }
      expected.append(sampled)
      if expected.count == count { break }
      last = try model.decode([(0, Int32(sampled.token))])[0]
    }
    try await withMesh(MeshPlan(languageStages: 3)) { mesh in
      var settings = ChatSettings.tokens(count)
      settings.sampling = SamplingParameters(
        temperature: 0.9, topK: 40, topP: 0.95, repetitionPenalty: 1.7, seed: 12, topLogprobs: 3)
      let answer = try await mesh.client.ask([.user("Hello")], settings: settings)
      #expect(answer.tokenIDs == expected.map { Int32($0.token) })
      let logprobs = try #require(answer.logprobs)
      #expect(logprobs.map(\.logprob.bitPattern) == expected.map { $0.logprob?.bitPattern })
      #expect(
        logprobs.flatMap(\.top).map(\.token)
          == expected.flatMap(\.top).map { Int32($0.token) })
      #expect(
        logprobs.flatMap(\.top).map(\.logprob.bitPattern)
          == expected.flatMap(\.top).map(\.logprob.bitPattern))
    }
  }

  @Test func `The seed decides, and it is told`() async throws {
    try await withMesh { mesh in
      func ask(_ seed: UInt64?) async throws -> ChatResult {
        var settings = ChatSettings.tokens(30)
        settings.sampling = SamplingParameters(temperature: 1, seed: seed)
        return try await mesh.client.ask([.user("Hello")], settings: settings)
      }
      let first = try await ask(1)
      #expect(try await ask(1).tokenIDs == first.tokenIDs)
      #expect(try await ask(2).tokenIDs != first.tokenIDs)
      let random = try await ask(nil)
      let seed = try #require(random.seed)
      #expect(try await ask(seed).tokenIDs == random.tokenIDs)
      #expect(try await ask(nil).seed != seed)
    }
  }
}
