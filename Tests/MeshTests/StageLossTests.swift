import Messages
import Sequencer
import Testing
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Stages, and gateways, that go away in the middle of their work.
@Suite(.timeLimit(.minutes(1))) struct StageLossTests {
  private static let turns = [ChatTurn.user("Describe the picture in one sentence.")]
  private let long = ChatRequest(turns: [.user("Hello")], maxTokens: 4000, ignoreEnd: true)

  /// Everything that a short answer about a picture is computed from.
  private func compute(_ mesh: TestMesh) async throws -> GoldenModel.Computed {
    try await mesh.client.compute(
      StageLossTests.turns, GoldenModel.tiny.pictures("image.jpg"), tokens: 10)
  }

  @Test(arguments: ["language-0", "language-1", "language-2"])
  func `An answer ends with UNAVAILABLE when its language stage goes, and later ones are as before`(
    _ name: String
  ) async throws {
    try await withMesh(MeshPlan(visionStages: 2, languageStages: 3)) { mesh in
      let expected = try await compute(mesh)
      let stage = try mesh.stage(name)
      for _ in 0..<2 {
        var reader = mesh.channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
        for _ in 0..<4 { _ = try await reader.next() }
        await stage.stop()
        let error = await status { while try await reader.next() != nil {} }
        #expect(error?.code == .unavailable)
        let message = error?.message ?? ""
        #expect(message.contains(name), "\(message)")
        try await mesh.sees(name, ready: false)

        try await stage.start()
        let found = try await compute(mesh)
        #expect(found == expected)
        try await mesh.cachesAreEmpty()
        try await eventually("nothing runs") { try await mesh.client.describe().running == 0 }
      }
    }
  }

  @Test func `Every answer under way ends when a language stage goes`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.cacheTokens = 8 * 4096
    try await withMesh(plan) { mesh in
      let begun = Counter()
      let errors = await withTaskGroup(of: RPCError?.self) { group in
        for _ in 0..<8 {
          group.addTask {
            await status {
              var isFirst = true
              for try await event in mesh.channel.stream(Methods.Gateway.chat, long)
              where !event.message.tokens.isEmpty {
                if isFirst { begun.add() }
                isFirst = false
              }
            }
          }
        }
        group.addTask {
          await status {
            try await eventually("all answers have begun") { begun.value == 8 }
            await (try mesh.stage("language-1")).stop()
          }
        }
        return await group.reduce(into: []) { $0.append($1) }
      }
      #expect(errors.count { $0 == nil } == 1)
      #expect(errors.count { $0?.code == .unavailable } == 8)
      try await mesh.sees("language-1", ready: false)
      try await mesh.stage("language-1").start()
      let settings = ChatSettings.tokens(5)
      let answer = try await mesh.client.ask([.user("Hello")], settings: settings)
      #expect(answer.tokenIDs.count == 5)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test(arguments: ["vision-0", "projector"])
  func `A picture in flight ends with UNAVAILABLE when its stage goes`(_ name: String)
    async throws
  {
    let expected = try await withMesh(MeshPlan()) { try await compute($0) }
    let calls = StuckStage.Calls()
    var plan = MeshPlan()
    plan.stands[name] =
      try name == "projector"
      ? StuckStage.projector(.tiny, calls) : StuckStage.vision(.tiny, calls)
    try await withMesh(plan) { mesh in
      let asking = Task { try await compute(mesh) }
      try await eventually("the picture is at \(name)") { calls.begun.value == 1 }
      await (try mesh.stage(name)).stop()
      let error = await status { _ = try await asking.value }
      #expect(error?.code == .unavailable)
      #expect(error?.message.contains(name) == true, "\(error?.message ?? "")")
      try await mesh.sees(name, ready: false)
      try await mesh.cachesAreEmpty()

      // The real one at the same address.
      await (try mesh.stage(name)).dropStand()
      try await mesh.stage(name).start()
      #expect(try await compute(mesh) == expected)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test(arguments: ["vision-0", "vision-1", "projector"])
  func `A stage without which text could be answered comes back as it was`(_ name: String)
    async throws
  {
    try await withMesh(MeshPlan(visionStages: 2)) { mesh in
      let expected = try await compute(mesh)
      let stage = try mesh.stage(name)
      for _ in 0..<2 {
        await stage.stop()
        try await mesh.sees(name, ready: false)
        async let waiting = compute(mesh)
        try await eventually("a request waits") { try await mesh.client.describe().waiting == 1 }
        try await stage.start()
        #expect(try await waiting == expected)
      }
    }
  }

  @Test(
    .enabled(if: Executables.areBuilt, "the executables are not beside the test bundle"),
    arguments: ["language-0", "language-1"])
  func `A stage's process that is killed is replaced, and later answers are as before`(
    _ name: String
  ) async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.children = [name]
    try await withMesh(plan) { mesh in
      let expected = try await compute(mesh)
      for _ in 0..<2 {
        var reader = mesh.channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
        for _ in 0..<4 { _ = try await reader.next() }
        let process = try #require(
          try await mesh.client.describe().stages.first { $0.name == name }?.description?.process)
        try #require(process > 1 && process != Int64(getpid()))
        #expect(kill(pid_t(process), SIGKILL) == 0)
        let error = await status { while try await reader.next() != nil {} }
        #expect(error?.code == .unavailable)
        try await eventually("another process serves \(name)") {
          let stage = try await mesh.client.describe().stages.first { $0.name == name }
          let other = stage?.description?.process
          return stage?.ready == true && other != nil && other != process
        }
        let found = try await compute(mesh)
        #expect(found == expected)
        try await mesh.cachesAreEmpty()
      }
    }
  }

  @Test func `Losing a vision stage leaves answers under way alone`() async throws {
    try await withMesh { mesh in
      var request = long
      request.maxTokens = 1500
      var reader = mesh.channel.stream(Methods.Gateway.chat, request).makeAsyncIterator()
      _ = try await reader.next()
      await (try mesh.stage("vision-0")).stop()
      try await mesh.sees("vision-0", ready: false)
      var result = ChatResult()
      while let event = try await reader.next() { result.add(event.message) }
      #expect(result.tokenIDs.count == 1500)
      #expect(result.finishReason == "length")
    }
  }

  @Test func `Stages forget the sequences of a gateway that goes, and only those`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.cacheTokens = 2 * 4096
    try await withMesh(plan) { mesh in
      let other = try GatewayHost(
        mesh.directory.socket("other"), model: .tiny, addresses: mesh.addresses,
        limits: GatewayLimits())
      try await other.service.ready(within: .seconds(30))
      let channel = Channel(other.endpoint)
      var lost = channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
      var kept = mesh.channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
      _ = try await lost.next()
      _ = try await lost.next()
      var result = ChatResult()
      for _ in 0..<2 {
        if let event = try await kept.next() { result.add(event.message) }
      }
      #expect(try await mesh.describe("language-0").sequences == 2)
      #expect(try await mesh.describe("language-1").sequences == 2)
      await other.stop()
      let error = await status { while try await lost.next() != nil {} }
      #expect(error?.code == .unavailable)
      for name in ["language-0", "language-1"] {
        try await eventually("\(name) has one sequence") {
          try await mesh.describe(name).sequences == 1
        }
      }
      while let event = try await kept.next() { result.add(event.message) }
      #expect(result.tokenIDs.count == 4000)
      try await mesh.cachesAreEmpty()
      channel.close()
    }
  }

  @Test func `Two gateways share the stages`() async throws {
    try await withMesh(MeshPlan(visionStages: 2, languageStages: 2)) { mesh in
      let expected = try await compute(mesh)
      let other = try GatewayHost(
        mesh.directory.socket("other"), model: .tiny, addresses: mesh.addresses,
        limits: GatewayLimits())
      try await other.service.ready(within: .seconds(30))
      let client = ChatClient(other.endpoint)
      try await withThrowingTaskGroup(of: GoldenModel.Computed.self) { group in
        for index in 0..<12 {
          let asked = index.isMultiple(of: 2) ? mesh.client : client
          group.addTask {
            try await asked.compute(
              StageLossTests.turns, GoldenModel.tiny.pictures("image.jpg"), tokens: 10)
          }
        }
        for try await found in group { #expect(found == expected) }
      }
      client.close()
      await other.stop()
      #expect(try await compute(mesh) == expected)
      try await mesh.cachesAreEmpty()
    }
  }
}
