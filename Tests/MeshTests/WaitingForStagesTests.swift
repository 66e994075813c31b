import Messages
import Sequencer
import Testing
import Transport

/// Requests that wait for a place while a language stage goes away.
@Suite(.timeLimit(.minutes(1))) struct WaitingForStagesTests {
  private let long = ChatRequest(turns: [.user("Hello")], maxTokens: 3500, ignoreEnd: true)

  private func answer(_ mesh: TestMesh) async throws -> [Int32] {
    try await mesh.client.ask([.user("Second")], settings: .tokens(8)).tokenIDs
  }

  @Test(arguments: ["language-0", "language-1"], [1, 32])
  func `Requests that wait for a place are answered when a lost stage is back`(
    _ name: String, _ places: Int
  ) async throws {
    var plan = MeshPlan(languageStages: 2)
    // The first answer takes the one place there is, or nearly all of the caches.
    plan.limits.running = places
    plan.cacheTokens = 3584
    try await withMesh(plan) { mesh in
      let expected = try await answer(mesh)
      let stage = try mesh.stage(name)
      for _ in 0..<3 {
        var reader = mesh.channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
        for _ in 0..<2 { _ = try await reader.next() }
        let waiting = (0..<3).map { _ in Task { try await answer(mesh) } }
        try await eventually("three requests wait") {
          try await mesh.client.describe().waiting == 3
        }
        await stage.stop()
        let error = await status { while try await reader.next() != nil {} }
        #expect(error?.code == .unavailable)
        try await mesh.sees(name, ready: false)
        #expect(try await mesh.client.describe().waiting == 3)
        try await stage.start()
        for task in waiting { #expect(try await task.value == expected) }
        try await mesh.cachesAreEmpty()
      }
      try await eventually("nothing runs or waits") {
        let description = try await mesh.client.describe()
        return description.running == 0 && description.waiting == 0
      }
    }
  }
}
