import Messages
import Sequencer
import Tensors
import Testing
import Transport

/// The end of a sequence reaches a language stage that is at work.
@Suite(.timeLimit(.minutes(1))) struct EndTests {
  /// Begins steps that keep a stage busy for a while, one for each sequence.
  private func keepBusy(_ mesh: TestMesh, _ sequences: ClosedRange<UInt64>) async throws
    -> [Task<Void, any Error>]
  {
    let tokens = (0..<4000).map { Int32(5 + $0 % 300) }
    let tasks = sequences.map { sequence in
      Task {
        let step = SequenceStep(
          sequence: sequence, tokens: tokens, promptTokens: tokens.count, sample: true)
        do {
          let reply = try await mesh.call(
            "language-0", Methods.LanguageModel.step, StepRequest(steps: [step]))
          // Ended before its turn, or carried out.
          let code = reply.message.results.first?.errorCode
          #expect(code == nil || code == .cancelled)
        } catch let error as RPCError where error.code == .resourceExhausted {
          // Its turn came after too many other calls.
        }
      }
    }
    try await eventually("the stage is at work") {
      try await mesh.describe("language-0").cacheTokensUsed > 0
    }
    return tasks
  }

  private var plan: MeshPlan {
    var plan = MeshPlan()
    plan.cacheTokens = 16384
    return plan
  }

  @Test func `End is taken where other calls are refused`() async throws {
    try await withMesh(plan) { mesh in
      let channel = Channel(await (try mesh.stage("language-0")).endpoint)
      defer { channel.close() }
      _ = try await channel.call(
        Methods.LanguageModel.end, EndRequest(sequences: [99]), deadline: .after(.seconds(30)))
      let steps = try await keepBusy(mesh, 1...4)
      // Pictures that are turned away, when it is their turn.
      let refused = Counter()
      let pictures = (0..<400).map { _ in
        Task {
          let error = await status {
            _ = try await channel.call(
              Methods.LanguageModel.placeImage, EncodeRequest(sequence: 99),
              tensors: [Attachment(Tensor(zeros: .float32, [4, 64]))])
          }
          if error?.code == .resourceExhausted { refused.add() }
          #expect(error?.code == .resourceExhausted || error?.code == .cancelled)
        }
      }
      try await eventually("more calls wait than may") { refused.value > 0 }
      _ = try await channel.call(
        Methods.LanguageModel.end, EndRequest(sequences: [1, 2, 3, 4]),
        deadline: .after(.seconds(60)))
      for task in steps { try await task.value }
      for task in pictures { await task.value }
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `An End that nobody waits for any more still ends`() async throws {
    try await withMesh(plan) { mesh in
      let channel = Channel(await (try mesh.stage("language-0")).endpoint)
      defer { channel.close() }
      _ = try await channel.call(Methods.Stage.describe, DescribeRequest())
      let steps = try await keepBusy(mesh, 1...4)
      // A deadline cancels at the stage, too, and the request is certain to be on its way.
      let error = await status {
        _ = try await channel.call(
          Methods.LanguageModel.end, EndRequest(sequences: [1, 2, 3, 4]),
          deadline: .after(.milliseconds(20)))
      }
      #expect(error == nil || error?.code == .deadlineExceeded)
      for task in steps { try await task.value }
      try await mesh.cachesAreEmpty()
    }
  }
}
