import Logging
import Messages
import Sequencer
import StageRuntime
import Testing
import Transport

/// Captures that are larger than the memory which the processes share.
@Suite(.timeLimit(.minutes(1))) struct CaptureMemoryTests {
  /// Two thousand positions: 4 MiB of logits, 512 KiB a step.
  private static let turns = [
    ChatTurn.user((0..<120).map { "Word \($0) of a long text." }.joined(separator: " "))
  ]

  @Test(arguments: [64 << 10, 1 << 20])
  func `A capture larger than the shared memory has the right bits`(_ arena: Int) async throws {
    let pictures = try GoldenModel.tiny.pictures("image.jpg", "second.jpg")
    let expected = try GoldenModel.tiny.compute(CaptureMemoryTests.turns, pictures, tokens: 4)
    try #require(expected.logits.count * 4 > 2 << 20)
    try await withSmallMesh(arena) { gateway in
      for _ in 0..<2 {
        let client = ChatClient(gateway)
        defer { client.close() }
        let found = try await client.compute(CaptureMemoryTests.turns, pictures, tokens: 4)
        let same = found == expected
        #expect(same)
      }
    }
  }

  @Test func `A capture that nobody reads leaves memory for others`() async throws {
    let expected = try GoldenModel.tiny.compute(CaptureMemoryTests.turns, [], tokens: 4)
    try await withSmallMesh(1 << 20) { gateway in
      let channel = Channel(gateway)
      defer { channel.close() }
      var request = ChatRequest(
        turns: CaptureMemoryTests.turns, maxTokens: 4, ignoreEnd: true)
      request.capture = true
      var readers: [ResponseStream<ChatEvent>.Iterator] = []
      for _ in 0..<3 {
        var reader = channel.stream(Methods.Gateway.chat, request).makeAsyncIterator()
        _ = try await reader.next()
        readers.append(reader)
      }
      let client = ChatClient(gateway)
      defer { client.close() }
      let found = try await client.compute(CaptureMemoryTests.turns, [], tokens: 4)
      let same = found == expected
      #expect(same)
      withExtendedLifetime(readers) {}
    }
  }

  /// A mesh with two language stages each of whose processes shares `arena` bytes with the next.
  private func withSmallMesh(
    _ arena: Int, _ body: (Endpoint) async throws -> Void
  ) async throws {
    let directory = try SocketDirectory()
    defer { directory.remove() }
    let model = GoldenModel.tiny
    var options = ServerOptions()
    options.connection.arenaBytes = arena
    func stage(_ layers: Range<Int>, next: String?) -> StageOptions {
      StageOptions(
        model: model.folder, slice: .layers(layers),
        next: next.map { .endpoint(directory.socket($0)) }, cacheTokens: 4 * 4096,
        arenaBytes: arena)
    }
    let gateway = try GatewayService(
      modelFolder: model.folder,
      addresses: StageAddresses(
        vision: [directory.socket("vision-0")], projector: directory.socket("projector"),
        language: [directory.socket("language-0"), directory.socket("language-1")]),
      logger: .quiet)
    let routers: [(String, Router)] = [
      (
        "language-1",
        try LanguageService(stage(1..<model.languageLayers, next: nil), logger: .quiet).router
      ),
      ("language-0", try LanguageService(stage(0..<1, next: "language-1"), logger: .quiet).router),
      ("projector", try ProjectorService(stage(0..<1, next: "language-0"), logger: .quiet).router),
      (
        "vision-0",
        try VisionService(stage(0..<model.visionLayers, next: "projector"), logger: .quiet).router
      ),
      ("gateway", gateway.router),
    ]
    let servers = try routers.map { name, router in
      try Server(directory.socket(name), router: router, options: options)
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for server in servers { group.addTask { try await server.run() } }
      group.addTask { await gateway.run() }
      defer { group.cancelAll() }
      try await gateway.ready(within: .seconds(30))
      try await body(directory.socket("gateway"))
    }
  }
}
