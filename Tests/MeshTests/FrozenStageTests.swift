import Messages
import Sequencer
import Testing
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Stages that hold their connections open and do nothing any more.
@Suite(.timeLimit(.minutes(2))) struct FrozenStageTests {
  private static let turns = [ChatTurn.user("Describe the picture in one sentence.")]
  private let long = ChatRequest(turns: [.user("Hello")], maxTokens: 4000, ignoreEnd: true)

  private func compute(_ mesh: TestMesh) async throws -> GoldenModel.Computed {
    try await mesh.client.compute(
      FrozenStageTests.turns, GoldenModel.tiny.pictures("image.jpg"), tokens: 10)
  }

  /// A mesh whose gateway finds a frozen stage out within seconds.
  private var plan: MeshPlan {
    var plan = MeshPlan(languageStages: 2)
    plan.limits.heartbeat = .milliseconds(50)
    plan.limits.silence = .seconds(2)
    return plan
  }

  @Test(
    .enabled(if: Executables.areBuilt, "the executables are not beside the test bundle"),
    arguments: ["language-0", "language-1"])
  func `A stage's process that is stopped is found out, and serves again when it goes on`(
    _ name: String
  ) async throws {
    var plan = plan
    plan.children = [name]
    try await withMesh(plan) { mesh in
      func health() async throws -> ServingStatus {
        try await mesh.channel.call(Methods.Health.check, HealthCheckRequest()).message.status
      }
      let expected = try await compute(mesh)
      for _ in 0..<2 {
        var reader = mesh.channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
        for _ in 0..<4 { _ = try await reader.next() }
        let process = try #require(
          try await mesh.client.describe().stages.first { $0.name == name }?.description?.process)
        try #require(process > 1 && process != Int64(getpid()))
        #expect(kill(pid_t(process), SIGSTOP) == 0)
        defer { kill(pid_t(process), SIGCONT) }

        let error = await status { while try await reader.next() != nil {} }
        #expect(error?.code == .unavailable)
        let message = error?.message ?? ""
        #expect(message.contains(name), "\(message)")
        try await mesh.sees(name, ready: false)
        try await eventually("the gateway is NOT_SERVING") { try await health() == .notServing }

        // One that comes while it is frozen waits for it.
        async let waiting = compute(mesh)
        try await eventually("a request waits") { try await mesh.client.describe().waiting == 1 }
        #expect(kill(pid_t(process), SIGCONT) == 0)
        #expect(try await waiting == expected)
        #expect(try await compute(mesh) == expected)
        #expect(try await health() == .serving)
        try await mesh.cachesAreEmpty()
        try await eventually("nothing runs") { try await mesh.client.describe().running == 0 }
      }
    }
  }

  @Test(arguments: ["vision-0", "projector"])
  func `A stage that hangs with a picture ends it with UNAVAILABLE`(name: String) async throws {
    let expected = try await withMesh(plan) { try await compute($0) }
    let calls = StuckStage.Calls()
    var plan = plan
    var stand =
      try name == "projector"
      ? StuckStage.projector(.tiny, calls) : StuckStage.vision(.tiny, calls)
    stand.handle(Methods.Health.check) { _, _ in
      // Well until it has work.
      while calls.begun.value > 0 { try await Task.sleep(for: .seconds(600)) }
      return Payload(HealthCheckResponse(status: .serving))
    }
    plan.stands[name] = stand
    try await withMesh(plan) { mesh in
      let error = await status { _ = try await compute(mesh) }
      #expect(calls.begun.value == 1)
      #expect(error?.code == .unavailable)
      #expect(error?.message.contains(name) == true, "\(error?.message ?? "")")
      try await mesh.cachesAreEmpty()
      try await eventually("nothing runs") { try await mesh.client.describe().running == 0 }

      // The real one at the same address.
      let stage = try mesh.stage(name)
      await stage.stop()
      await stage.dropStand()
      try await stage.start()
      #expect(try await compute(mesh) == expected)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `A stage that is busy but answers is left alone`() async throws {
    let calls = StuckStage.Calls()
    let asked = Counter()
    var plan = plan
    var stand = try StuckStage.vision(.tiny, calls)
    stand.handle(Methods.Health.check) { _, _ in
      asked.add()
      return Payload(HealthCheckResponse(status: .serving))
    }
    plan.stands["vision-0"] = stand
    plan.limits.heartbeat = .milliseconds(2)
    try await withMesh(plan) { mesh in
      let asking = Task { try await compute(mesh) }
      try await eventually("the picture is at the stage") { calls.begun.value == 1 }
      let before = asked.value
      try await eventually("its health was asked for often") { asked.value > before + 100 }
      #expect(calls.cancelled.value == 0)
      #expect(try await mesh.client.describe().stages.first?.ready == true)
      asking.cancel()
      _ = await asking.result
    }
  }
}
