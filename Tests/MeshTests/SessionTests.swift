import Messages
import Tensors
import Testing
import Transport

/// What stages keep for a gateway's session, and for how long.
@Suite(.timeLimit(.minutes(1))) struct SessionTests {
  private let session: UInt32 = 77

  private func id(_ number: UInt64) -> UInt64 { UInt64(session) << 32 | number }

  /// A gateway's connection to a stage.
  private final class Attached {
    let channel: Channel
    private var reader: ResponseStream<AttachReply>.Iterator

    init(_ stage: String, _ session: UInt32, _ mesh: TestMesh) async throws {
      channel = Channel(await (try mesh.stage(stage)).endpoint)
      reader = channel.stream(Methods.Stage.attach, AttachRequest(session: session))
        .makeAsyncIterator()
      _ = try #require(try await reader.next())
    }

    func close() { channel.close() }
  }

  private func step(_ mesh: TestMesh, _ sequence: UInt64, position: Int = 0) async throws
    -> SequenceResult?
  {
    let step = SequenceStep(
      sequence: sequence, position: position, tokens: [5, 6, 7], promptTokens: position + 3,
      sample: true)
    return try await mesh.call(
      "language-0", Methods.LanguageModel.step, StepRequest(steps: [step])
    ).message.results.first
  }

  private func place(_ mesh: TestMesh, _ sequence: UInt64) async throws {
    var request = EncodeRequest()
    request.sequence = sequence
    _ = try await mesh.call(
      "language-0", Methods.LanguageModel.placeImage, request,
      tensors: [Attachment(Tensor(zeros: .float32, [4, 64]))])
  }

  @Test func `A session that attached again outlives the end of its first connection`()
    async throws
  {
    try await withMesh { mesh in
      var latest = try await Attached("language-0", session, mesh)
      for number in 1...UInt64(5) {
        let next = try await Attached("language-0", session, mesh)
        #expect(try await step(mesh, id(number))?.token != nil)
        latest.close()
        // The end of a connection takes a moment to be noticed, and shows in nothing.
        for round in 1...20 {
          #expect(try await mesh.describe("language-0").sequences == 1)
          let result = try await step(mesh, id(number), position: 3 * round)
          try #require(result?.token != nil, "\(result?.errorMessage ?? "")")
          try await Task.sleep(for: .milliseconds(5))
        }
        latest = next
        _ = try await mesh.call(
          "language-0", Methods.LanguageModel.end, EndRequest(sequences: [id(number)]))
      }
      #expect(try await step(mesh, id(9))?.token != nil)
      latest.close()
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `A session begins without what its last connection has left`() async throws {
    try await withMesh { mesh in
      let first = try await Attached("language-0", session, mesh)
      #expect(try await step(mesh, id(1))?.token != nil)
      #expect(try await mesh.describe("language-0").sequences == 1)
      let second = try await Attached("language-0", session, mesh)
      #expect(try await mesh.describe("language-0").sequences == 0)
      first.close()
      second.close()
    }
  }

  @Test func `Nothing is taken for a session that is gone, until it is back`() async throws {
    var plan = MeshPlan()
    // Image rows of one picture.
    plan.pictureBytes = 4 * 64 * 4
    try await withMesh(plan) { mesh in
      for round in 0..<UInt64(3) {
        let attached = try await Attached("language-0", session, mesh)
        try await place(mesh, id(10 * round + 1))
        #expect(try await step(mesh, id(10 * round + 1))?.token != nil)
        attached.close()
        try await mesh.cachesAreEmpty()

        let late = id(10 * round + 2)
        #expect(await status { try await place(mesh, late) }?.code == .cancelled)
        #expect(try await step(mesh, late)?.errorCode == .cancelled)
        #expect(try await mesh.describe("language-0").sequences == 0)
        // Neither the first picture nor the late one is held.
        let other: UInt64 = 1000 + round
        try await place(mesh, other)
        #expect(await status { try await place(mesh, other + 100) }?.code == .resourceExhausted)
        _ = try await mesh.call(
          "language-0", Methods.LanguageModel.end, EndRequest(sequences: [other]))
      }
    }
  }
}
