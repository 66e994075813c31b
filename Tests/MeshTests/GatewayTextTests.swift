import Messages
import Sequencer
import Testing
import Transport

/// What ends an answer, and what is told about it.
@Suite(.timeLimit(.minutes(1))) struct GatewayTextTests {
  private static let turns = [ChatTurn.user("Describe the picture in one sentence.")]

  /// An answer and the pieces its text came in.
  private func ask(_ mesh: TestMesh, _ settings: ChatSettings) async throws -> (
    answer: ChatResult, pieces: [String]
  ) {
    var pieces: [String] = []
    let answer = try await mesh.client.ask(GatewayTextTests.turns, settings: settings) {
      pieces.append($0)
    }
    return (answer, pieces)
  }

  @Test func `Greedy text is the tokenizer's of the tokens`() async throws {
    try await withMesh { mesh in
      let (answer, pieces) = try await ask(mesh, .tokens(40))
      let tokenizer = mesh.gateway.service.builder.tokenizer
      #expect(answer.text == tokenizer.decode(answer.tokenIDs.map(Int.init)))
      #expect(pieces.joined() == answer.text)
      #expect(pieces.count > 10)
      #expect(answer.finishReason == "length")
    }
  }

  @Test func `A stop string cuts the text where it begins`() async throws {
    try await withMesh { mesh in
      let whole = try await ask(mesh, .tokens(40)).answer
      let characters = Array(whole.text)
      try #require(characters.count > 30)
      for (start, length) in [(0, 1), (5, 1), (12, 7), (20, 3), (characters.count - 2, 2)] {
        let stop = String(characters[start..<start + length])
        var settings = ChatSettings.tokens(40)
        settings.stop = ["\u{1}never", stop]
        let (answer, pieces) = try await ask(mesh, settings)
        let place = try #require(whole.text.utf8.firstRange(of: stop.utf8))
        #expect(Array(answer.text.utf8) == Array(whole.text.utf8[..<place.lowerBound]))
        #expect(pieces.joined() == answer.text)
        #expect(answer.finishReason == "stop")
        #expect(whole.tokenIDs.starts(with: answer.tokenIDs))
        #expect(answer.usage.completionTokens == answer.tokenIDs.count)
      }
    }
  }

  @Test func `What could become a stop string is held back until it cannot`() async throws {
    try await withMesh { mesh in
      let whole = try await ask(mesh, .tokens(40))
      let end = String(whole.answer.text.suffix(6))
      var settings = ChatSettings.tokens(40)
      settings.stop = [end + "\u{1}"]
      let held = try await ask(mesh, settings)
      #expect(held.answer.text == whole.answer.text)
      #expect(held.answer.finishReason == "length")
      let last = try #require(held.pieces.last)
      #expect(last.hasSuffix(end))
    }
  }

  @Test func `A stop token ends the answer without its text`() async throws {
    try await withMesh { mesh in
      let whole = try await ask(mesh, .tokens(24)).answer
      let tokenizer = mesh.gateway.service.builder.tokenizer
      for stop in [whole.tokenIDs[0], whole.tokenIDs[9]] {
        var settings = ChatSettings.tokens(24)
        settings.stopTokens = [stop]
        let answer = try await ask(mesh, settings).answer
        let place = try #require(whole.tokenIDs.firstIndex(of: stop))
        #expect(answer.tokenIDs == Array(whole.tokenIDs[...place]))
        #expect(answer.text == tokenizer.decode(whole.tokenIDs[..<place].map(Int.init)))
        #expect(answer.finishReason == "stop")
      }
    }
  }

  @Test func `An end token ends the answer unless it is ignored`() async throws {
    try await withMesh { mesh in
      let ends = mesh.gateway.service.builder.endTokens
      var found = false
      for seed: UInt64 in 0..<20 where !found {
        var endless = ChatSettings.tokens(300)
        endless.sampling = SamplingParameters(temperature: 3, seed: seed)
        let whole = try await ask(mesh, endless).answer
        #expect(whole.tokenIDs.count == 300)
        guard let place = whole.tokenIDs.firstIndex(where: ends.contains), place > 0 else {
          continue
        }
        found = true
        endless.ignoresEnd = false
        let answer = try await ask(mesh, endless).answer
        #expect(answer.tokenIDs == Array(whole.tokenIDs[...place]))
        #expect(answer.finishReason == "stop")
        #expect(answer.usage.completionTokens == place + 1)
        let tokenizer = mesh.gateway.service.builder.tokenizer
        #expect(answer.text == tokenizer.decode(answer.tokenIDs.dropLast().map(Int.init)))
      }
      #expect(found, "no seed ran into an end token")
    }
  }

  @Test(arguments: [1, 2, 17])
  func `As many tokens as were asked for`(_ count: Int) async throws {
    try await withMesh { mesh in
      let answer = try await ask(mesh, .tokens(count)).answer
      #expect(answer.tokenIDs.count == count)
      #expect(answer.usage.completionTokens == count)
      #expect(answer.finishReason == "length")
    }
  }

  @Test func `Without max_tokens the default or the context's rest`() async throws {
    var plan = MeshPlan()
    plan.limits.defaultMaxTokens = 19
    try await withMesh(plan) { mesh in
      var settings = ChatSettings()
      settings.ignoresEnd = true
      let answer = try await ask(mesh, settings).answer
      #expect(answer.tokenIDs.count == 19)
    }
  }

  @Test func `The last position of the context can be used`() async throws {
    try await withMesh { mesh in
      let context = mesh.gateway.service.builder.contextLength
      let text = String(repeating: "house ", count: 600)
      let prompt = try mesh.gateway.service.builder.build(turns: [.user(text)], files: [])
      let room = context - prompt.tokens.count
      try #require(room > 0)
      var settings = ChatSettings.tokens(room)
      let answer = try await mesh.client.ask([.user(text)], settings: settings)
      #expect(answer.usage.promptTokens + answer.usage.completionTokens == context)
      settings.maxTokens = room + 1
      let error = await status {
        _ = try await mesh.client.ask([.user(text)], settings: settings)
      }
      #expect(error?.code == .invalidArgument)
      #expect(error?.message.contains("at most \(room) tokens") == true)
    }
  }

  @Test func `Usage counts the prompt, its pictures and the answer`() async throws {
    try await withMesh { mesh in
      let builder = mesh.gateway.service.builder
      for count in 0...3 {
        let pictures = try (0..<count).flatMap { _ in try GoldenModel.tiny.pictures("image.jpg") }
        let answer = try await mesh.client.ask(
          GatewayTextTests.turns, pictures: pictures, settings: .tokens(5))
        let prompt = try builder.build(
          turns: GatewayTextTests.turns, files: pictures.map(\.tensor))
        #expect(answer.usage.promptTokens == prompt.tokens.count)
        #expect(answer.usage.imageTokens == 4 * count)
        #expect(answer.usage.completionTokens == 5)
        let timings = answer.timings
        let parts = timings.queue + timings.image + timings.prefill + timings.decode
        #expect(parts > 0 && parts <= timings.total + 1)
      }
    }
  }

  @Test func `Earlier turns and the system message count`() async throws {
    try await withMesh { mesh in
      let settings = ChatSettings.tokens(20)
      let plain = try await mesh.client.ask([.user("Hello")], settings: settings)
      let system = try await mesh.client.ask(
        [.system("Answer in French."), .user("Hello")], settings: settings)
      let conversation = try await mesh.client.ask(
        [.user("Hi"), .assistant("Yes?"), .user("Hello")], settings: settings)
      let sameSystem = try await mesh.client.ask(
        [.system("Answer the questions."), .user("Hello")], settings: settings)
      #expect(system.tokenIDs != plain.tokenIDs)
      #expect(conversation.tokenIDs != plain.tokenIDs)
      #expect(sameSystem.tokenIDs == plain.tokenIDs)
    }
  }
}
