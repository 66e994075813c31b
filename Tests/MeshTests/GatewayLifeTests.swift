import Messages
import Sequencer
import Testing
import Transport

/// Cancellation, health, and what a gateway tells of its mesh.
@Suite(.timeLimit(.minutes(1))) struct GatewayLifeTests {
  private let long = ChatRequest(turns: [.user("Hello")], maxTokens: 4000, ignoreEnd: true)

  @Test func `A stream that is let go frees the caches of every stage`() async throws {
    try await withMesh(MeshPlan(languageStages: 3)) { mesh in
      do {
        var reader = mesh.channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
        for _ in 0..<4 { _ = try await reader.next() }
        for name in ["language-0", "language-1", "language-2"] {
          let description = try await mesh.describe(name)
          #expect(description.sequences == 1)
          #expect(description.cacheTokensUsed > 4000)
        }
        withExtendedLifetime(reader) {}
      }
      try await mesh.cachesAreEmpty()
      try await eventually("nothing runs") { try await mesh.client.describe().running == 0 }
    }
  }

  @Test func `A task that is cancelled frees the caches of every stage`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      let begun = Counter()
      let reading = Task {
        for try await _ in mesh.channel.stream(Methods.Gateway.chat, long) { begun.add() }
      }
      try await eventually("the answer has begun") { begun.value > 3 }
      reading.cancel()
      let error = await status { try await reading.value }
      #expect(error?.code == .cancelled)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `A client whose connection breaks frees the caches of every stage`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      let channel = Channel(mesh.gateway.endpoint)
      var reader = channel.stream(Methods.Gateway.chat, long).makeAsyncIterator()
      for _ in 0..<4 { _ = try await reader.next() }
      channel.close()
      try await mesh.cachesAreEmpty()
      withExtendedLifetime(reader) {}
    }
  }

  @Test func `A deadline ends an answer and frees its caches`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      var reader = mesh.channel.stream(
        Methods.Gateway.chat, long, deadline: .after(.seconds(1))
      ).makeAsyncIterator()
      // Nobody reads on, so that the answer cannot end before its deadline.
      var error = await status { _ = try await reader.next() }
      try await eventually("the request is gone") {
        try await mesh.client.describe().running == 0
      }
      try await mesh.cachesAreEmpty()
      if error == nil { error = await status { while try await reader.next() != nil {} } }
      #expect(error?.code == .deadlineExceeded)
    }
  }

  @Test func `Cancelling a picture's encoding reaches the vision stage`() async throws {
    let calls = StuckStage.Calls()
    var plan = MeshPlan()
    plan.stands["vision-0"] = try StuckStage.vision(.tiny, calls)
    try await withMesh(plan) { mesh in
      let pictures = try GoldenModel.tiny.pictures("image.jpg")
      let asking = Task { try await mesh.client.ask([.user("Hello")], pictures: pictures) }
      try await eventually("the picture is at the vision stage") { calls.begun.value == 1 }
      #expect(calls.cancelled.value == 0)
      #expect(try await mesh.client.describe().running == 1)
      asking.cancel()
      let error = await status { _ = try await asking.value }
      #expect(error?.code == .cancelled)
      try await eventually("the vision stage is told") { calls.cancelled.value == 1 }
      try await eventually("the request is gone") {
        try await mesh.client.describe().running == 0
      }
    }
  }

  @Test func `Cancelling a picture's encoding reaches the stage behind`() async throws {
    let calls = StuckStage.Calls()
    var plan = MeshPlan(visionStages: 2)
    plan.stands["projector"] = try StuckStage.projector(.tiny, calls)
    try await withMesh(plan) { mesh in
      let pictures = try GoldenModel.tiny.pictures("image.jpg")
      let asking = Task { try await mesh.client.ask([.user("Hello")], pictures: pictures) }
      try await eventually("the picture is at the projector") { calls.begun.value == 1 }
      asking.cancel()
      _ = await asking.result
      try await eventually("the projector is told") { calls.cancelled.value == 1 }
    }
  }

  @Test func `Health is NOT_SERVING until every stage is there, and again without one`()
    async throws
  {
    var plan = MeshPlan(languageStages: 2)
    plan.absent = ["language-1"]
    plan.waitsForStages = false
    try await withMesh(plan) { mesh in
      var watch = mesh.channel.stream(
        Methods.Health.watch, HealthCheckRequest(service: "chiasm.v1.Gateway")
      ).makeAsyncIterator()
      func check() async throws -> ServingStatus {
        try await mesh.channel.call(Methods.Health.check, HealthCheckRequest()).message.status
      }
      #expect(try await watch.next()?.message.status == .notServing)
      try await mesh.sees("language-0", ready: true)
      #expect(try await check() == .notServing)
      let stage = try mesh.stage("language-1")
      for _ in 0..<3 {
        try await stage.start()
        #expect(try await watch.next()?.message.status == .serving)
        #expect(try await check() == .serving)
        await stage.stop()
        #expect(try await watch.next()?.message.status == .notServing)
        #expect(try await check() == .notServing)
      }
    }
  }

  @Test func `A request waits for a stage that comes`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.absent = ["language-1"]
    plan.waitsForStages = false
    try await withMesh(plan) { mesh in
      let settings = ChatSettings.tokens(5)
      async let answer = mesh.client.ask([.user("Hello")], settings: settings)
      try await eventually("the request waits") { try await mesh.client.describe().waiting == 1 }
      try await mesh.stage("language-1").start()
      #expect(try await answer.tokenIDs.count == 5)
    }
  }

  @Test func `Describe tells of the model and of every stage`() async throws {
    var plan = MeshPlan(visionStages: 2, languageStages: 2)
    plan.cacheTokens = 1000
    plan.threads = 2
    try await withMesh(plan) { mesh in
      let before = try await mesh.client.describe()
      #expect(before.model == "checkpoint")
      #expect(before.templateName == "Hermes-2")
      #expect(before.contextLength == 4096)
      #expect(before.imageSize == 56)
      #expect(before.imageTokens == 4)
      let names = ["vision-0", "vision-1", "projector", "language-0", "language-1"]
      #expect(before.stages.map(\.name) == names)
      let ranges = [[0, 1, 3], [1, 3, 3], [0, 1, 1], [0, 1, 3], [1, 3, 3]]
      for (stage, range) in zip(before.stages, ranges) {
        let description = try #require(stage.description)
        #expect(stage.ready && stage.detail.isEmpty)
        #expect(stage.address == "\(mesh.directory.socket(stage.name))")
        #expect(
          [description.firstLayer, description.endLayer, description.layerCount] == range)
        #expect(description.role == stage.name.split(separator: "-")[0])
        #expect(description.threads == 2)
        #expect(description.weightBytes > 0)
        #expect(description.modelDigest == mesh.gateway.service.builder.configuration.digest)
        #expect(description.cacheTokens == (description.role == "language" ? 1024 : 0))
      }
      let settings = ChatSettings.tokens(5)
      let pictures = try GoldenModel.tiny.pictures("image.jpg")
      _ = try await mesh.client.ask([.user("Hello")], pictures: pictures, settings: settings)
      let after = try await mesh.client.describe()
      // One picture; one prompt and four steps, the image rows of the first language stage and
      // the end of the sequence.
      let calls = zip(after.stages, before.stages).map {
        ($0.description?.calls ?? 0) - ($1.description?.calls ?? 0)
      }
      #expect(Array(calls[..<3]) == [1, 1, 1])
      #expect(calls[3] >= 6 && calls[4] >= 5)

      await (try mesh.stage("projector")).stop()
      try await mesh.sees("projector", ready: false)
      let projector = try #require(try await mesh.client.describe().stages.dropFirst(2).first)
      #expect(!projector.detail.isEmpty)
      #expect(projector.description == nil)
    }
  }
}
