import Testing

@testable import Messages

@Suite struct MessageTests {
  static let sampling = SamplingParameters(
    temperature: 0.7, topK: 40, topP: 0.9, minP: 0.05, repetitionPenalty: 1.1, seed: .max,
    topLogprobs: 5)
  static let lora = LoRASettings(rank: 16, alpha: 32, dropout: 0.05)
  static let action = TrainingAction(kind: .backwardWeight, microBatch: 63, chunk: 1)
  static var slicedStage: StageDescription {
    var stage = stage
    stage.cacheBlockTokens = 64
    stage.slices = [LayerRange(firstLayer: 3, endLayer: 5), LayerRange()]
    return stage
  }
  static let stage = StageDescription(
    role: "language", firstLayer: 3, endLayer: 30, layerCount: 60, device: "cpu", threads: 2,
    process: -1, weightBytes: 1 << 40, workingBytes: 7, cacheTokens: 4096, cacheTokensUsed: 12,
    sequences: 2, calls: 9, busyMicroseconds: 123, modelDigest: "ab12")

  /// Every message, with every field set.
  static let full: [any CodedMessage] = [
    CallStatus(code: .dataLoss, message: "was lost — wholly"),
    Frame(
      kind: .status, call: .max, method: "chiasm.v1.Stage/Describe", authority: "far",
      timeoutMicroseconds: 5, status: CallStatus(code: .ok), message: [0, 1, 255],
      tensors: [
        TensorRef(
          scalarType: .bfloat16, shape: [2, 0, 3], byteCount: 0, arenaOffset: 64, name: "vision"),
        TensorRef(scalarType: .uint8, shape: [], byteCount: 1),
      ], released: [0, 1 << 40], version: 1, acceptsArena: true, arenaByteCount: 4096,
      streamWindow: 64, credit: 32),
    HealthCheckRequest(service: "language"), HealthCheckResponse(status: .serviceUnknown),
    DescribeRequest(), stage, AttachRequest(session: .max), AttachReply(),
    EncodeRequest(sequence: 1 << 63, picture: 2, captureVision: true, captureProjector: true),
    EncodeReply(tokens: 256, busyMicroseconds: [1, 1 << 40]), sampling,
    SequenceStep(
      sequence: 9, position: 17, tokens: [0, 64000, .max], imageRows: [0, 1, 256],
      promptTokens: 20, reserve: 0, sample: true, sampling: sampling, captureLogits: true),
    StepRequest(steps: [SequenceStep(sequence: 1), SequenceStep(sequence: 2)], chunk: 3),
    TokenLogprob(token: 7, logprob: -0.5),
    SequenceResult(
      sequence: 4, token: 0, logprob: -1, top: [TokenLogprob(token: 1, logprob: -2)],
      errorCode: .resourceExhausted, errorMessage: "no room"),
    StepReply(results: [SequenceResult(sequence: 4)], busyMicroseconds: [3]),
    EndRequest(sequences: [1, .max]), EndReply(), ChatTurn(role: "user", text: "a\u{0}b<image>"),
    ChatRequest(
      turns: [ChatTurn(role: "user", text: "hello")], sampling: sampling, maxTokens: 10,
      stop: ["\n", ""], stopTokens: [7], ignoreEnd: true, capture: true),
    Usage(promptTokens: 1, completionTokens: 2, imageTokens: 3),
    Timings(queue: 0.5, image: 1, prefill: 2, decode: 3, total: 6.5),
    ChatLogprob(chosen: TokenLogprob(token: 1), top: [TokenLogprob(token: 2)]),
    ChatEvent(
      text: "日本\u{0}", tokens: [5], logprobs: [ChatLogprob(chosen: TokenLogprob(token: 5))],
      finishReason: "stop", usage: Usage(promptTokens: 1), timings: Timings(total: 1),
      promptTokens: [1, 2], decodedSHA256: ["aa"], resizedSHA256: ["bb"], seed: 0),
    GatewayStage(
      name: "language-0", address: "unix:/run/x", ready: true, detail: "fine", description: stage),
    GatewayDescription(
      model: "m", templateName: "t", contextLength: 4096, imageSize: 448, imageTokens: 256,
      stages: [GatewayStage(name: "a")], running: 1, waiting: 2),
    slicedStage, LayerRange(firstLayer: 3, endLayer: 5), lora,
    PrepareTrainingRequest(
      seed: .max, trainVision: true, trainProjector: true, trainLanguage: true, visionLoRA: lora,
      languageLoRA: LoRASettings(), dropPathRate: 0.4, recompute: "full", beta1: 0.9,
      beta2: 0.999, epsilon: 1e-8, weightDecay: 0.05, decay: "all", resume: "/run/x",
      keepGradients: true, imageToken: 64000, sharedFiles: ["/run/x/a", "/run/y"]),
    ParameterDescription(
      name: "mlp1.0.weight", shape: [4, 1 << 40], scalarType: .bfloat16, isTrained: true),
    PrepareTrainingReply(
      parameters: [ParameterDescription(name: "a"), ParameterDescription(name: "b", shape: [2])],
      trainingBytes: 1 << 40, updates: 7),
    MicroBatchSample(key: .max, tokens: 2048, tiles: 12, turns: [1, 1024, 1 << 31]),
    FeedRequest(
      step: 9, microBatch: 3, samples: [MicroBatchSample(key: 1), MicroBatchSample(tokens: 2)],
      tokens: [1, 64000, .max], labels: [-100, 0, .min, .max], lossScale: 1e-3,
      attempt: 2),
    FeedReply(), action, ObjectiveMessages.prepare, ObjectiveMessages.feed,
    ObjectiveMessages.reply,
    TrainingStepRequest(
      step: 9, actions: [action, TrainingAction()], microBatches: 64, forwardOnly: true,
      attempt: 2),
    MicroBatchLoss(microBatch: 2, sum: -.leastNonzeroMagnitude, rows: 17),
    ActionTiming(action: action, startMicroseconds: 1 << 40, durationMicroseconds: 5),
    ParameterNorm(name: "a", sumOfSquares: .infinity),
    TrainingStepReply(
      losses: [MicroBatchLoss(microBatch: 2)], norms: [ParameterNorm(name: "a")],
      timings: [ActionTiming(action: action)], originMicroseconds: 1 << 50,
      peakSavedBytes: 1 << 40, peakSavedMicroBatches: 4),
    ForwardRequest(step: 9, microBatch: 3, chunk: 1, attempt: 2), ForwardReply(),
    UpdateRequest(step: 9, learningRate: 1e-5, gradientScale: 0.5, skip: true), UpdateReply(),
    AbandonRequest(step: .max), AbandonReply(),
    ReleaseTrainingRequest(), ReleaseTrainingReply(), SavedShard(path: "a", names: ["b", "c"]),
    SaveRequest(
      folder: "/run/x", model: [SavedShard(path: "a", names: ["b"])], optimizerPath: "o",
      mergeLoRA: true, scalarType: .bfloat16, isVolatile: true, updates: 0),
    SaveReply(bytes: 1 << 40, noRoom: "/run/x/a"),
    FetchRequest(names: ["a", "b"], what: "gradient"), FetchReply(),
    TrainRequest(configuration: [0x7B, 0x7D]), TrainEvent(json: [0x7B, 0x7D]),
  ]

  @Test("comes back as it went, with every field set and with none", arguments: full.indices)
  func roundTrip(index: Int) throws {
    func check<M: CodedMessage>(_ message: M) throws {
      #expect(try M.decode(message.encoded()) == message)
      #expect(M().encoded().count <= 4)
      #expect(try M.decode(M().encoded()) == M())
    }
    try check(Self.full[index])
  }

  @Test("tells an absent field from an empty one")
  func absence() throws {
    #expect(try Frame.decode(Frame(kind: .status).encoded()).message == nil)
    #expect(try Frame.decode(Frame(kind: .status, message: []).encoded()).message == [])
    #expect(try SequenceResult.decode(SequenceResult(token: 0).encoded()).token == 0)
    #expect(try SequenceResult.decode([]).token == nil)
    #expect(try SamplingParameters.decode([]).topP == 1)
    #expect(try SaveRequest.decode(SaveRequest(optimizerPath: "").encoded()).optimizerPath == "")
    #expect(try SaveRequest.decode([]).optimizerPath == nil)
    #expect(try SaveRequest.decode([]).scalarType == nil)
  }

  @Test("an encoding is appended to what is there")
  func appends() throws {
    var bytes: [UInt8] = [9, 9]
    CallStatus(code: .aborted).encode(into: &bytes)
    #expect(bytes == [9, 9, 8, 10])
  }

  @Test("a NUL inside a name does not cut it off unnoticed")
  func nul() throws {
    let status = CallStatus(code: .ok, message: "a\u{0}b")
    #expect(try CallStatus.decode(status.encoded()).message == "a\u{FFFD}b")
  }

  @Test("skips fields it does not know")
  func unknownFields() throws {
    // Field 1000, varint.
    let bytes = CallStatus(code: .aborted).encoded() + [0xC0, 0x3E, 0x05]
    #expect(try CallStatus.decode(bytes) == CallStatus(code: .aborted))
  }

  @Test("refuses an enumeration's number that has no case")
  func unknownEnum() {
    #expect(throws: MessagesError.unknownEnumValue(field: "Status.code", value: 99)) {
      try CallStatus.decode([8, 99])
    }
    #expect(throws: MessagesError.unknownEnumValue(field: "TensorRef.scalar", value: 0)) {
      try TensorRef.decode([])
    }
    #expect(throws: MessagesError.unknownEnumValue(field: "TrainingAction.kind", value: 0)) {
      try TrainingAction.decode([])
    }
    #expect(throws: MessagesError.unknownEnumValue(field: "SaveRequest.scalar", value: 9)) {
      try SaveRequest.decode([40, 9])
    }
    let minusOne: [UInt8] = [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]
    #expect(throws: MessagesError.unknownEnumValue(field: "Frame.kind", value: -1)) {
      try Frame.decode(minusOne)
    }
  }

  @Test("refuses text that is not UTF-8")
  func invalidText() {
    #expect(throws: MessagesError.invalidText(field: "Status.message")) {
      try CallStatus.decode([18, 2, 0xC3, 0x28])
    }
    #expect(throws: MessagesError.invalidText(field: "ChatTurn.text")) {
      try ChatTurn.decode([18, 1, 0xFF])
    }
  }

  @Test("refuses numbers that do not fit")
  func range() {
    let max: [UInt8] = [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]
    #expect(throws: MessagesError.numberOutOfRange(field: "TensorRef.byte_count", value: .max)) {
      try TensorRef.decode([8, 1, 24] + max)
    }
    #expect(throws: MessagesError.numberOutOfRange(field: "TokenLogprob.token", value: 1 << 31)) {
      try TokenLogprob.decode([8, 0x80, 0x80, 0x80, 0x80, 0x08])
    }
  }

  @Test(
    "refuses bytes that are no message",
    arguments: [
      [0x0A], [0x12, 0x05, 0x41],
      [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
      [0x00], [0x0B], [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
    ] as [[UInt8]])
  func malformed(bytes: [UInt8]) {
    #expect(throws: MessagesError.malformed(message: "Status", byteCount: bytes.count)) {
      try CallStatus.decode(bytes)
    }
  }

  @Test("a message of a million empty parts is refused instead of filling the memory")
  func amplification() {
    let bytes = Array(repeating: [0x0A, 0x00] as [UInt8], count: 1_000_000).flatMap { $0 }
    #expect(throws: MessagesError.malformed(message: "StepRequest", byteCount: 2_000_000)) {
      try StepRequest.decode(bytes)
    }
  }

  @Test("steps and micro-batches of the largest size that is of use fit")
  func largeTraining() throws {
    let step = TrainingStepRequest(
      step: 1,
      actions: (0..<4096).flatMap { index in
        ActionKind.allCases.map { TrainingAction(kind: $0, microBatch: index, chunk: index % 8) }
      }, microBatches: 4096)
    #expect(try TrainingStepRequest.decode(step.encoded()) == step)
    let feed = FeedRequest(
      samples: (0..<512).map { MicroBatchSample(key: $0, tokens: 512, tiles: 1) },
      tokens: (0..<262_144).map { Int32($0 % 64_000) },
      labels: (0..<262_144).map { $0 % 3 == 0 ? Int32($0 % 64_000) : -100 })
    #expect(try FeedRequest.decode(feed.encoded()) == feed)
    let reply = TrainingStepReply(
      norms: (0..<4096).map { ParameterNorm(name: "layer.\($0)", sumOfSquares: Double($0)) },
      timings: step.actions.map { ActionTiming(action: $0, durationMicroseconds: 9) })
    #expect(try TrainingStepReply.decode(reply.encoded()) == reply)
  }

  @Test("a step of 32 long prompts fits")
  func largeStep() throws {
    let tokens = (0..<4096).map { Int32($0 % 128) }
    let request = StepRequest(
      steps: (0..<32).map { SequenceStep(sequence: $0, tokens: tokens, imageRows: tokens) })
    #expect(try StepRequest.decode(request.encoded()) == request)
  }

  @Test("damaged messages are refused or read, never more", arguments: full.indices)
  func fuzz(index: Int) {
    var generator = SeededGenerator(seed: UInt64(index) + 1)
    func check<M: CodedMessage>(_ message: M) {
      let bytes = message.encoded()
      for _ in 0..<100 {
        var damaged = bytes
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
          switch Int.random(in: 0..<3, using: &generator) {
          case 0 where !damaged.isEmpty:
            damaged[Int.random(in: damaged.indices, using: &generator)] = .random(
              in: 0...255, using: &generator)
          case 1 where !damaged.isEmpty:
            damaged.removeLast(Int.random(in: 1...damaged.count, using: &generator))
          default:
            damaged.insert(
              .random(in: 0...255, using: &generator),
              at: Int.random(in: 0...damaged.count, using: &generator))
          }
        }
        if let read = try? M.decode(damaged) { _ = read.encoded() }
      }
    }
    check(Self.full[index])
  }

  @Test("status codes have gRPC's numbers and names")
  func statusCodes() {
    #expect(StatusCode.allCases.map(\.rawValue) == Array(0...16))
    #expect(StatusCode(rawValue: 4)?.description == "DEADLINE_EXCEEDED")
    #expect(Set(StatusCode.allCases.map(\.description)).count == 17)
  }

  @Test(
    "an error says what was found",
    arguments: [
      (MessagesError.malformed(message: "Frame", byteCount: 3), "3 bytes"),
      (.unknownEnumValue(field: "Frame.kind", value: 99), "Frame.kind is 99"),
      (.invalidText(field: "Status.message"), "Status.message is not UTF-8"),
      (.numberOutOfRange(field: "TensorRef.byte_count", value: 7), "TensorRef.byte_count is 7"),
    ])
  func descriptions(error: MessagesError, part: String) {
    #expect("\(error)".contains(part))
  }
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
