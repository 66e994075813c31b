import Messages
import Sequencer
import Testing
import Transport

/// Clients that ask and do not read.
@Suite(.timeLimit(.minutes(1))) struct UnreadAnswerTests {
  /// More events than travel before the reader has taken some.
  private let request = ChatRequest(turns: [.user("Hello")], maxTokens: 300, ignoreEnd: true)

  private func answer(_ mesh: TestMesh) async throws -> [Int32] {
    try await mesh.client.ask([.user("Second")], settings: .tokens(8)).tokenIDs
  }

  @Test func `An answer that nobody reads gives back its place when it ends`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.limits.running = 1
    try await withMesh(plan) { mesh in
      let expected = try await answer(mesh)
      for _ in 0..<3 {
        var reader = mesh.channel.stream(Methods.Gateway.chat, request).makeAsyncIterator()
        var result = ChatResult()
        if let event = try await reader.next() { result.add(event.message) }
        #expect(try await answer(mesh) == expected)
        try await mesh.cachesAreEmpty()
        try await eventually("nothing runs") { try await mesh.client.describe().running == 0 }
        // It is whole, whenever it is read.
        while let event = try await reader.next() { result.add(event.message) }
        #expect(result.tokenIDs.count == 300)
        #expect(result.finishReason == "length")
      }
    }
  }

  @Test func `As many unread answers as may run leave room for others`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.limits.running = 4
    try await withMesh(plan) { mesh in
      let expected = try await answer(mesh)
      var readers: [ResponseStream<ChatEvent>.Iterator] = []
      for _ in 0..<8 {
        var reader = mesh.channel.stream(Methods.Gateway.chat, request).makeAsyncIterator()
        _ = try await reader.next()
        readers.append(reader)
      }
      #expect(try await answer(mesh) == expected)
      try await mesh.cachesAreEmpty()
      try await eventually("nothing runs") { try await mesh.client.describe().running == 0 }
      withExtendedLifetime(readers) {}
    }
  }
}
