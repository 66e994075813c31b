import Messages
import Sequencer
import StageRuntime
import Support
import Tensors
import Testing
import Transport

/// Calls that no gateway or stage of ours would make get a status, and the stage works on.
@Suite(.timeLimit(.minutes(1))) struct BadStageInputTests {
  struct BadCall: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let stage: String
    let code: StatusCode
    let word: String
    /// Makes the call for the sequence of that number.
    let make: @Sendable (TestMesh, UInt64) async throws -> Void

    /// A picture on its way.
    static func picture<Response>(
      _ description: String, _ stage: String, _ method: Method<EncodeRequest, Response>,
      _ tensors: [Tensor], _ code: StatusCode = .invalidArgument, _ word: String = "expected"
    ) -> BadCall {
      let tensors = tensors.map { Attachment($0) }
      return BadCall(
        testDescription: "\(stage): \(description)", stage: stage, code: code, word: word
      ) { mesh, id in
        var request = EncodeRequest()
        request.sequence = id
        _ = try await mesh.call(stage, method, request, tensors: tensors)
      }
    }

    /// A step that fails as a whole, or for its first sequence.
    static func step(
      _ description: String, _ stage: String, _ steps: [SequenceStep], _ tensors: [Tensor] = [],
      _ code: StatusCode = .invalidArgument, word: String
    ) -> BadCall {
      let tensors = tensors.map { Attachment($0) }
      return BadCall(
        testDescription: "\(stage): \(description)", stage: stage, code: code, word: word
      ) { mesh, id in
        var request = StepRequest(steps: steps)
        for index in steps.indices where steps[index].sequence == 1 {
          request.steps[index].sequence = id
        }
        let reply = try await mesh.call(
          stage, Methods.LanguageModel.step, request, tensors: tensors)
        let results = reply.message.results.filter { $0.sequence == id }
        #expect(results.count == 1)
        if let code = results.first?.errorCode {
          throw RPCError(code, results.first?.errorMessage ?? "")
        }
      }
    }
  }

  /// A step that would be well.
  private static func part(
    _ sequence: UInt64 = 1, position: Int = 0, tokens: [Int32] = [5, 6, 7],
    _ change: (inout SequenceStep) -> Void = { _ in }
  ) -> SequenceStep {
    var step = SequenceStep(
      sequence: sequence, position: position, tokens: tokens, promptTokens: 3, sample: true)
    change(&step)
    return step
  }

  private static func zeros(_ shape: Int..., type: ScalarType = .float32) -> Tensor {
    Tensor(zeros: type, shape)
  }

  // The tiny model: pictures of 56 pixels, 17 vision tokens of 96, 4 image rows of 64.
  static let vision: [BadCall] = {
    let encode = Methods.VisionEncoder.encode
    return [
      .picture("no tensor", "vision-0", encode, []),
      .picture("two tensors", "vision-0", encode, [zeros(1, 3, 56, 56), zeros(1, 3, 56, 56)]),
      .picture("no tile", "vision-0", encode, [zeros(0, 3, 56, 56)]),
      .picture("too many tiles", "vision-0", encode, [zeros(65, 3, 56, 56)]),
      .picture("without the tiles' dimension", "vision-0", encode, [zeros(3, 56, 56)]),
      .picture("one dimension too many", "vision-0", encode, [zeros(1, 1, 3, 56, 56)]),
      .picture("another size", "vision-0", encode, [zeros(1, 3, 56, 55)]),
      .picture("one channel", "vision-0", encode, [zeros(1, 1, 56, 56)]),
      .picture("a scalar", "vision-0", encode, [Tensor(zeros: .float32, [])]),
      .picture("bfloat16", "vision-0", encode, [zeros(1, 3, 56, 56, type: .bfloat16)]),
      .picture("integers", "vision-0", encode, [zeros(1, 3, 56, 56, type: .int32)]),
      .picture("hidden states", "vision-0", encode, [zeros(1, 17, 96)]),
      .picture("pixels", "vision-1", encode, [zeros(1, 3, 56, 56)]),
      .picture("one token too few", "vision-1", encode, [zeros(1, 16, 96)]),
      .picture("another width", "vision-1", encode, [zeros(1, 17, 97)]),
      .picture(
        "a projector's call", "vision-0", Methods.Projector.project, [zeros(1, 17, 96)],
        .unimplemented, "Project"),
      .picture("no tensor", "projector", Methods.Projector.project, []),
      .picture("image rows", "projector", Methods.Projector.project, [zeros(4, 64)]),
      .picture("no class token", "projector", Methods.Projector.project, [zeros(1, 16, 96)]),
      .picture("no tile", "projector", Methods.Projector.project, [zeros(0, 17, 96)]),
      .picture(
        "bytes", "projector", Methods.Projector.project, [zeros(1, 17, 96, type: .uint8)]),
    ]
  }()

  static let images: [BadCall] = {
    let place = Methods.LanguageModel.placeImage
    return [
      .picture("no image rows", "language-0", place, []),
      .picture("rows of no number", "language-0", place, [zeros(0, 64)]),
      .picture("rows of another width", "language-0", place, [zeros(4, 63)]),
      .picture("rows of rows", "language-0", place, [zeros(1, 4, 64)]),
      .picture("rows of bfloat16", "language-0", place, [zeros(4, 64, type: .bfloat16)]),
      .picture("more rows than 64 tiles have", "language-0", place, [zeros(257, 64)]),
      .picture(
        "rows at a later stage", "language-1", place, [zeros(4, 64)], .failedPrecondition,
        "--next"),
    ]
  }()

  static let steps: [BadCall] = [
    .step("no sequences", "language-0", [], word: "0 sequences"),
    .step(
      "too many sequences", "language-0", (1...1025).map { part(UInt64($0)) },
      word: "1025 sequences"),
    .step(
      "too many rows", "language-0", [part(tokens: [Int32](repeating: 5, count: 8193))],
      word: "8193 rows"),
    .step("two parts of one sequence", "language-0", [part(), part()], word: "two parts"),
    .step("no tokens", "language-0", [part(tokens: [])], word: "0 tokens"),
    .step(
      "image rows of another count", "language-0", [part { $0.imageRows = [1, 2] }],
      word: "2 image rows"),
    .step("a token beyond the vocabulary", "language-0", [part(tokens: [5, 600, 7])], word: "600"),
    .step("a token far beyond", "language-0", [part(tokens: [Int32.max])], word: "\(Int32.max)"),
    .step(
      "hidden states at the first stage", "language-0", [part()], [zeros(3, 64)],
      word: "1 tensors"),
    .step("no hidden states", "language-1", [part()], word: "0 tensors"),
    .step("too few hidden states", "language-1", [part()], [zeros(2, 64)], word: "[2, 64]"),
    .step("too many hidden states", "language-1", [part()], [zeros(4, 64)], word: "[4, 64]"),
    .step("narrow hidden states", "language-1", [part()], [zeros(3, 63)], word: "[3, 63]"),
    .step("flat hidden states", "language-1", [part()], [zeros(192)], word: "[192]"),
    .step(
      "half as precise hidden states", "language-1", [part()],
      [zeros(3, 64, type: .bfloat16)], word: "bfloat16"),
    .step("two tensors", "language-1", [part()], [zeros(3, 64), zeros(3, 64)], word: "2 tensors"),
    .step(
      "a token beyond the vocabulary", "language-1", [part(tokens: [5, 600, 7])],
      [zeros(3, 64)], word: "600"),
    .step(
      "the middle of an unknown sequence", "language-0", [part(position: 3)], [], .unavailable,
      word: "position 3"),
    .step(
      "the middle of an unknown sequence", "language-1", [part(position: 1)], [zeros(3, 64)],
      .unavailable, word: "position 1"),
    .step(
      "a position beyond the context", "language-0", [part(position: 4095)], [], .outOfRange,
      word: "4098"),
    .step(
      "a position beyond any", "language-0", [part(position: Int(UInt32.max))], [], .outOfRange,
      word: "4096"),
    .step(
      "more room than there is", "language-0", [part { $0.reserve = 5000 }], [],
      .resourceExhausted, word: "5000"),
    .step(
      "more room than anywhere", "language-0", [part { $0.reserve = Int(UInt32.max) }], [],
      .resourceExhausted, word: "4294967295"),
    .step(
      "image rows that never came", "language-0", [part { $0.imageRows = [0, 1, 0] }], [],
      .unavailable, word: "image row 1"),
    .step(
      "an image row of any number", "language-0", [part { $0.imageRows = [Int32.max, 0, 0] }],
      [], .unavailable, word: "image row"),
    .step(
      "a sample within the prompt", "language-0", [part { $0.promptTokens = 4 }],
      word: "inside its prompt"),
    .step(
      "a prompt of any length", "language-0", [part { $0.promptTokens = Int(UInt32.max) }],
      word: "inside its prompt"),
    .step(
      "sampling without sense", "language-0",
      [part { $0.sampling = SamplingParameters(temperature: -1) }], word: "temperature"),
    .step(
      "countless log-probabilities", "language-0",
      [part { $0.sampling = SamplingParameters(topLogprobs: Int(UInt32.max)) }],
      word: "top_logprobs"),
  ]

  @Test(arguments: zip(["vision", "images", "steps"], [vision, images, steps]))
  func `Bad calls have a status, and good ones still an answer`(
    _ name: String, _ calls: [BadCall]
  ) async throws {
    try await withMesh(MeshPlan(visionStages: 2, languageStages: 2)) { mesh in
      let turns = [ChatTurn.user("Hello")]
      let pictures = try GoldenModel.tiny.pictures("image.jpg")
      let expected = try await mesh.client.compute(turns, pictures, tokens: 6)
      for (index, call) in calls.enumerated() {
        let id = UInt64(10_000 + index)
        let error = await status { try await call.make(mesh, id) }
        #expect(error?.code == call.code, "\(call.testDescription): \(error?.message ?? "")")
        #expect(
          error?.message.contains(call.word) == true,
          "\(call.testDescription): \"\(error?.message ?? "")\" lacks \(call.word)")
        // What the call began is over.
        for name in ["language-0", "language-1"] {
          _ = try await mesh.call(
            name, Methods.LanguageModel.end, EndRequest(sequences: [id]))
        }
        try await mesh.cachesAreEmpty()
        let found = try await mesh.client.compute(turns, pictures, tokens: 6)
        #expect(found == expected, "after \(call.testDescription)")
      }
    }
  }

  @Test func `One sequence's error leaves the others of its step alone`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      func token(_ steps: [SequenceStep]) async throws -> [UInt64: SequenceResult] {
        let reply = try await mesh.call(
          "language-0", Methods.LanguageModel.step, StepRequest(steps: steps))
        #expect(reply.message.results.count == steps.count)
        return Dictionary(uniqueKeysWithValues: reply.message.results.map { ($0.sequence, $0) })
      }
      let alone = try await token([BadStageInputTests.part(100)])[100]
      let results = try await token([
        BadStageInputTests.part(1, tokens: [5, 9999, 7]),
        BadStageInputTests.part(101),
        BadStageInputTests.part(2, position: 7),
        BadStageInputTests.part(3) { $0.imageRows = [1, 0, 0] },
        BadStageInputTests.part(102),
        BadStageInputTests.part(4) { $0.sampling = SamplingParameters(topP: 7) },
      ])
      #expect(alone?.token != nil)
      #expect(results[101]?.token == alone?.token)
      #expect(results[102]?.token == alone?.token)
      #expect(results[1]?.errorCode == .invalidArgument)
      #expect(results[2]?.errorCode == .unavailable)
      #expect(results[3]?.errorCode == .unavailable)
      #expect(results[4]?.errorCode == .invalidArgument)
    }
  }

  @Test func `A sequence that is over takes neither steps nor pictures`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      let id: UInt64 = 77
      _ = try await mesh.call(
        "language-0", Methods.LanguageModel.step,
        StepRequest(steps: [BadStageInputTests.part(id)]))
      #expect(try await mesh.describe("language-1").sequences == 1)
      for name in ["language-0", "language-1"] {
        // Twice, and with ids that never were.
        for _ in 0..<2 {
          _ = try await mesh.call(
            name, Methods.LanguageModel.end, EndRequest(sequences: [id, 1 << 60]))
        }
      }
      try await mesh.cachesAreEmpty()
      let step = try await mesh.call(
        "language-0", Methods.LanguageModel.step,
        StepRequest(steps: [BadStageInputTests.part(id)]))
      #expect(step.message.results.first?.errorCode == .cancelled)
      var request = EncodeRequest()
      request.sequence = id
      let error = await status {
        _ = try await mesh.call(
          "language-0", Methods.LanguageModel.placeImage, request,
          tensors: [Attachment(Tensor(zeros: .float32, [4, 64]))])
      }
      #expect(error?.code == .cancelled)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `Pictures beyond the limit are RESOURCE_EXHAUSTED until others end`() async throws {
    var plan = MeshPlan()
    plan.pictureBytes = 3 * 4 * 64 * 4
    try await withMesh(plan) { mesh in
      func place(_ sequence: UInt64, _ picture: Int) async throws {
        var request = EncodeRequest()
        request.sequence = sequence
        request.picture = picture
        _ = try await mesh.call(
          "language-0", Methods.LanguageModel.placeImage, request,
          tensors: [Attachment(Tensor(zeros: .float32, [4, 64]))])
      }
      for picture in 0..<3 { try await place(1, picture) }
      #expect(await status { try await place(2, 0) }?.code == .resourceExhausted)
      _ = try await mesh.call(
        "language-0", Methods.LanguageModel.end, EndRequest(sequences: [1]))
      for picture in 0..<3 { try await place(3, picture) }
      #expect(await status { try await place(4, 0) }?.code == .resourceExhausted)
    }
  }

  @Test func `Going back in a sequence gives the same tokens again`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      func step(_ position: Int, _ tokens: [Int32]) async throws -> SequenceResult? {
        let reply = try await mesh.call(
          "language-0", Methods.LanguageModel.step,
          StepRequest(steps: [
            BadStageInputTests.part(9, position: position, tokens: tokens) {
              $0.sampling = SamplingParameters(
                temperature: 1, repetitionPenalty: 1.5, seed: 3, topLogprobs: 4)
            }
          ]))
        return reply.message.results.first
      }
      let first = try await step(0, [5, 6, 7])
      let token = try #require(first?.token)
      let second = try await step(3, [token])
      _ = try await step(4, [11])
      // Back by one, by two, and to the start.
      let again = try await step(3, [token])
      #expect(again?.token == second?.token)
      #expect(again?.logprob?.bitPattern == second?.logprob?.bitPattern)
      let both = try await step(2, [7, token])
      #expect(both?.token == second?.token)
      #expect(both?.logprob?.bitPattern == second?.logprob?.bitPattern)
      let whole = try await step(0, [5, 6, 7])
      #expect(whole?.token == first?.token)
      #expect(whole?.logprob?.bitPattern == first?.logprob?.bitPattern)
    }
  }
}
