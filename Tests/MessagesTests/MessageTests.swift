import Testing

@testable import Messages

@Suite struct MessageTests {
  static let sampling = SamplingParameters(
    temperature: 0.7, topK: 40, topP: 0.9, minP: 0.05, repetitionPenalty: 1.1, seed: .max,
    topLogprobs: 5)
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
    StepRequest(steps: [SequenceStep(sequence: 1), SequenceStep(sequence: 2)]),
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
  ]

  @Test("comes back as it went, with every field set and with none", arguments: full.indices)
  func roundTrip(index: Int) throws {
    func check<M: CodedMessage>(_ message: M) throws {
      #expect(try M.decode(message.encoded()) == message)
      #expect(M().encoded().count <= 2)
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
