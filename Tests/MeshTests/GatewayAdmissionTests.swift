import Messages
import Sequencer
import Testing
import Transport

/// How many requests a gateway works on, and what becomes of the others.
@Suite(.timeLimit(.minutes(1))) struct GatewayAdmissionTests {
  private func request(_ text: String, tokens: Int) -> ChatRequest {
    ChatRequest(turns: [.user(text)], maxTokens: tokens, ignoreEnd: true)
  }

  private func answer(_ mesh: TestMesh, _ text: String, tokens: Int) async throws -> ChatResult {
    let settings = ChatSettings.tokens(tokens)
    return try await mesh.client.ask([.user(text)], settings: settings)
  }

  @Test func `One request more than may wait is RESOURCE_EXHAUSTED`() async throws {
    var plan = MeshPlan()
    plan.limits.running = 1
    plan.limits.waiting = 2
    try await withMesh(plan) { mesh in
      let expected = try await answer(mesh, "Second", tokens: 8)
      // An answer that nobody reads runs for as long as it is held.
      var reader = mesh.channel.stream(
        Methods.Gateway.chat, request("First", tokens: 2000)
      ).makeAsyncIterator()
      _ = try await reader.next()
      async let second = answer(mesh, "Second", tokens: 8)
      async let third = answer(mesh, "Second", tokens: 8)
      try await eventually("two requests wait") {
        let description = try await mesh.client.describe()
        return description.running == 1 && description.waiting == 2
      }
      let error = await status { _ = try await answer(mesh, "Fourth", tokens: 8) }
      #expect(error?.code == .resourceExhausted)
      #expect(error?.message.contains("2 requests are waiting") == true)

      var first = ChatResult()
      while let event = try await reader.next() { first.add(event.message) }
      #expect(first.tokenIDs.count == 2000)
      #expect(try await [second, third].map(\.tokenIDs) == [expected.tokenIDs, expected.tokenIDs])
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `A waiting request that is cancelled leaves its place`() async throws {
    var plan = MeshPlan()
    plan.limits.running = 1
    plan.limits.waiting = 1
    try await withMesh(plan) { mesh in
      var reader = mesh.channel.stream(
        Methods.Gateway.chat, request("First", tokens: 2000)
      ).makeAsyncIterator()
      _ = try await reader.next()
      for _ in 0..<3 {
        let waiting = Task { try await answer(mesh, "Second", tokens: 8) }
        try await eventually("a request waits") {
          try await mesh.client.describe().waiting == 1
        }
        waiting.cancel()
        let error = await status { _ = try await waiting.value }
        #expect(error?.code == .cancelled)
        try await eventually("nothing waits") { try await mesh.client.describe().waiting == 0 }
      }
      #expect(try await mesh.client.describe().running == 1)
      while try await reader.next() != nil {}
      #expect(try await answer(mesh, "Third", tokens: 8).tokenIDs.count == 8)
    }
  }

  @Test func `A request larger than the cache is RESOURCE_EXHAUSTED`() async throws {
    var plan = MeshPlan(languageStages: 2)
    plan.cacheTokens = 128
    try await withMesh(plan) { mesh in
      let error = await status { _ = try await answer(mesh, "Hello", tokens: 200) }
      #expect(error?.code == .resourceExhausted)
      #expect(error?.message.contains("the language stages have 128") == true)
      let prompt = try mesh.gateway.service.builder.build(turns: [.user("Hello")], files: [])
      let rest = 128 - prompt.tokens.count
      #expect(try await answer(mesh, "Hello", tokens: rest).tokenIDs.count == rest)
      try await mesh.cachesAreEmpty()
    }
  }

  @Test func `Requests that do not fit together wait, and all finish`() async throws {
    var plan = MeshPlan(visionStages: 2, languageStages: 3)
    // Two or three answers at a time, and image rows of twelve pictures.
    plan.cacheTokens = 384
    plan.pictureBytes = 12 * 4 * 64 * 4
    try await withMesh(plan) { mesh in
      let settings = ChatSettings.tokens(40)
      func ask() async throws -> [Int32] {
        try await mesh.client.ask(
          [.user("Hello")], pictures: GoldenModel.tiny.pictures("image.jpg"), settings: settings
        ).tokenIDs
      }
      let expected = try await ask()
      // More than once: what is not given back would be missed in the end.
      for _ in 0..<4 {
        try await withThrowingTaskGroup(of: [Int32].self) { group in
          for _ in 0..<12 { group.addTask { try await ask() } }
          for try await tokens in group { #expect(tokens == expected) }
        }
      }
      try await mesh.cachesAreEmpty()
      try await eventually("nothing runs or waits") {
        let description = try await mesh.client.describe()
        return description.running == 0 && description.waiting == 0
      }
    }
  }

  @Test func `Image rows are given back with their answer`() async throws {
    var plan = MeshPlan()
    plan.pictureBytes = 2 * 4 * 64 * 4
    try await withMesh(plan) { mesh in
      var settings = ChatSettings()
      settings.maxTokens = 2
      let pictures = try GoldenModel.tiny.pictures("image.jpg", "second.jpg")
      for _ in 0..<5 {
        _ = try await mesh.client.ask([.user("Hello")], pictures: pictures, settings: settings)
        try await mesh.cachesAreEmpty()
      }
      let error = await status {
        _ = try await mesh.client.ask(
          [.user("Hello")], pictures: pictures + pictures, settings: settings)
      }
      #expect(error?.code == .resourceExhausted)
      #expect(error?.message.contains("--picture-bytes") == true)
      try await mesh.cachesAreEmpty()
      _ = try await mesh.client.ask([.user("Hello")], pictures: pictures, settings: settings)
    }
  }

  @Test func `A reader that does not read holds up nobody`() async throws {
    try await withMesh(MeshPlan(languageStages: 2)) { mesh in
      let expected = try await answer(mesh, "Slow", tokens: 900)
      let other = try await answer(mesh, "Quick", tokens: 100)
      var reader = mesh.channel.stream(
        Methods.Gateway.chat, request("Slow", tokens: 900)
      ).makeAsyncIterator()
      var slow = ChatResult()
      for _ in 0..<3 {
        if let event = try await reader.next() { slow.add(event.message) }
      }
      // On the same connection, and on another one.
      for client in [mesh.client, ChatClient(mesh.gateway.endpoint)] {
        let settings = ChatSettings.tokens(100)
        let found = try await client.ask([.user("Quick")], settings: settings)
        #expect(found.tokenIDs == other.tokenIDs)
      }
      var quick = ChatResult()
      for try await event in mesh.channel.stream(
        Methods.Gateway.chat, request("Quick", tokens: 100))
      {
        quick.add(event.message)
      }
      #expect(quick.tokenIDs == other.tokenIDs)
      try await eventually("only the slow answer runs") {
        try await mesh.client.describe().running == 1
      }
      while let event = try await reader.next() { slow.add(event.message) }
      #expect(slow.tokenIDs == expected.tokenIDs)
      #expect(slow.text == expected.text)
      try await mesh.cachesAreEmpty()
    }
  }
}
