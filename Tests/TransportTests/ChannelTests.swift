import Messages
import Tensors
import Testing

@testable import Transport

@Suite(.timeLimit(.minutes(2))) struct ChannelTests {
  @Test("connects once for many callers")
  func once() async throws {
    let directory = PrivateDirectory()
    let server = try Server(directory.socket(), router: echoRouter())
    Task { try await server.run() }
    let channel = Channel(directory.socket(), options: .patient)
    try await withThrowingTaskGroup(of: ObjectIdentifier.self) { group in
      for _ in 0..<20 {
        group.addTask { ObjectIdentifier(try await channel.connection()) }
      }
      var all: Set<ObjectIdentifier> = []
      for try await one in group { all.insert(one) }
      #expect(all.count == 1)
    }
    #expect(server.connectionCount == 1)
    _ = try await channel.call(Methods.LanguageModel.step, StepRequest())
    channel.close()
    let closed = await failure {
      _ = try await channel.call(Methods.LanguageModel.step, StepRequest())
    }
    #expect(closed?.code == .unavailable)
    try await eventually { server.connectionCount == 0 }
    await server.shutDown(grace: .zero)
  }

  @Test("waits for a server that comes later, and finds the next one after a loss")
  func again() async throws {
    let directory = PrivateDirectory()
    let channel = Channel(directory.socket(), options: .patient)
    let early = Task { try await channel.call(Methods.LanguageModel.step, StepRequest()) }
    try await Task.sleep(for: .milliseconds(50))
    for _ in 0..<2 {
      let server = try Server(directory.socket(), router: echoRouter())
      let running = Task { try await server.run() }
      _ = try await early.value
      // A call that crosses the end of the server before is lost with it.
      while await failure({
        _ = try await channel.call(Methods.LanguageModel.step, StepRequest())
      })?.code == .unavailable { try await Task.sleep(for: .milliseconds(1)) }
      _ = try await channel.call(Methods.LanguageModel.step, StepRequest())
      await server.shutDown(grace: .seconds(10))
      try await running.value
    }
    channel.close()
  }

  @Test("gives up at the deadline, saying why")
  func deadline() async throws {
    let directory = PrivateDirectory()
    let channel = Channel(directory.socket(), options: .patient)
    let error = await failure {
      _ = try await channel.call(
        Methods.LanguageModel.step, StepRequest(), deadline: .after(.milliseconds(80)))
    }
    #expect(error?.code == .unavailable || error?.code == .deadlineExceeded)
    #expect(error?.message.contains("\(directory.path)/s") == true)
    let call = Task { await failure { _ = try await channel.connection() } }
    call.cancel()
    #expect(await call.value?.code == .cancelled)
  }

  @Test("streams and allocates on its connection")
  func conveniences() async throws {
    let directory = PrivateDirectory()
    var router = echoRouter()
    HealthService().register(in: &router)
    let server = try Server(directory.socket(), router: router)
    Task { try await server.run() }
    let channel = Channel(directory.socket(), options: .patient)
    let tensor = try await channel.allocate(.float32, [4000])
    tensor.copyElements(from: ramp([4000]))
    let reply = try await channel.call(
      Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor)])
    #expect(reply.tensors[0].tensor.hasSameBytes(as: ramp([4000])))
    for try await health in channel.stream(Methods.Health.watch, HealthCheckRequest()) {
      #expect(health.message.status == .serving)
      break
    }
    channel.close()
    await server.shutDown(grace: .zero)
  }
}

@Suite(.timeLimit(.minutes(2))) struct HealthServiceTests {
  private func check(_ connection: Connection, _ service: String) async throws -> ServingStatus {
    try await connection.call(Methods.Health.check, HealthCheckRequest(service: service))
      .message.status
  }

  @Test("Check says the status now; an unknown service is NOT_FOUND")
  func check() async throws {
    let health = HealthService(overall: .notServing)
    var router = Router()
    health.register(in: &router)
    try await withEnds(.inProcess, server: router) { (ends: Ends) async throws in
      #expect(try await check(ends.client, "") == .notServing)
      health.set("", .serving)
      health.set("language", .notServing)
      #expect(try await check(ends.client, "") == .serving)
      #expect(try await check(ends.client, "language") == .notServing)
      let unknown = await failure { _ = try await check(ends.client, "vision") }
      #expect(unknown?.code == .notFound)
    }
  }

  @Test("Watch sends the status now and at every change, also of a service not yet known")
  func watch() async throws {
    let health = HealthService()
    var router = Router()
    health.register(in: &router)
    try await withEnds(.inProcess, server: router) { (ends: Ends) async throws in
      var statuses = ends.client.stream(
        Methods.Health.watch, HealthCheckRequest(service: "language")
      ).makeAsyncIterator()
      let first = try await statuses.next()?.message.status
      #expect(first == .serviceUnknown)
      for status in [ServingStatus.notServing, .serving] {
        health.set("language", status)
        health.set("language", status)
        health.set("other", .serving)
        let next = try await statuses.next()?.message.status
        #expect(next == status)
      }
    }
  }
}

@Suite(.timeLimit(.minutes(2))) struct BridgeTests {
  @Test("calls, streams, tensors, errors, deadlines and cancellation pass a bridge over pipes")
  func throughPipes() async throws {
    // client → unix → near end → pipes → far end → unix → service
    let directory = PrivateDirectory()
    let cancelled = Notes<String>()
    var router = echoRouter()
    router.handleStream(Methods.Gateway.chat) { request, _, writer in
      for index in 0..<100 { try await writer.write(ChatEvent(text: "\(index)")) }
      throw RPCError(.aborted, request.message.turns.first?.text ?? "")
    }
    router.handle(Methods.LanguageModel.end) { _, context in
      cancelled.add(context.deadline == nil ? "forever" : "bounded")
      do {
        try await Task.sleep(for: .seconds(100))
      } catch {
        cancelled.add("cancelled")
        throw error
      }
      return Payload(EndReply())
    }
    let service = try Server(directory.socket("s"), router: router)
    Task { try await service.run() }

    let services = ["language": Channel(directory.socket("s"), options: .patient)]
    let (nearCarrier, farCarrier) = try pipeCarriers()
    let near = Connection(
      carrier: nearCarrier, isInitiator: true, options: .patient, router: Router())
    let far = Connection(
      carrier: farCarrier, isInitiator: false, options: .init(),
      router: Bridge.router(byAuthority: services))
    near.start()
    far.start()
    try await near.ready.value(whenCancelled: .cancelled("the test"))
    let front = try Server(
      directory.socket("t"), router: Bridge.router { _ in (near, authority: "language") })
    Task { try await front.run() }
    let lost = try Server(directory.socket("u"), router: Bridge.router { _ in (near, "nobody") })
    Task { try await lost.run() }

    let client = try await Connection.connect(
      to: directory.socket("t"), options: .patient, deadline: .after(.seconds(100)))
    let reply = try await client.call(
      Methods.LanguageModel.step, StepRequest(steps: [SequenceStep(sequence: 5)]),
      tensors: [Attachment(ramp([300, 100]), name: "hidden"), Attachment(ramp([2]))])
    #expect(reply.message.results.map(\.sequence) == [5])
    #expect(reply.tensor(named: "hidden")?.hasSameBytes(as: ramp([300, 100])) == true)
    #expect(reply.tensors[1].tensor.hasSameBytes(as: ramp([2])))

    var texts: [String] = []
    let error = await failure {
      for try await event in client.stream(
        Methods.Gateway.chat, ChatRequest(turns: [ChatTurn(role: "user", text: "why")]))
      { texts.append(event.message.text) }
    }
    #expect(texts == (0..<100).map(String.init))
    #expect(error == RPCError(.aborted, "why"))

    let missing = await failure {
      _ = try await client.call(Methods.Stage.describe, DescribeRequest())
    }
    #expect(missing?.code == .unimplemented)

    let call = Task {
      await failure {
        _ = try await client.call(
          Methods.LanguageModel.end, EndRequest(), deadline: .after(.seconds(60)))
      }
    }
    _ = try await cancelled.wait(for: 1)
    call.cancel()
    #expect(await call.value?.code == .cancelled)
    let notes = try await cancelled.wait(for: 2)
    #expect(notes == ["bounded", "cancelled"])

    let nobody = try await Connection.connect(
      to: directory.socket("u"), options: .patient, deadline: .after(.seconds(100)))
    let unknown = await failure {
      _ = try await nobody.call(Methods.LanguageModel.step, StepRequest())
    }
    #expect(unknown?.code == .notFound)
    #expect(unknown?.message.contains("language") == true)

    far.close()
    let dead = await failure {
      _ = try await client.call(Methods.LanguageModel.step, StepRequest())
    }
    #expect(dead?.code == .unavailable)
    for connection in [client, nobody, near, far] { connection.close() }
    services["language"]?.close()
    for server in [service, front, lost] { await server.shutDown(grace: .zero) }
  }

  @Test("a channel's bridge stamps its authority, or leaves the call's")
  func authority() async throws {
    let directory = PrivateDirectory()
    var router = Router()
    router.handle(Methods.LanguageModel.step) { _, context in
      throw RPCError(.aborted, context.authority ?? "none")
    }
    let service = try Server(directory.socket("s"), router: router)
    Task { try await service.run() }
    let channel = Channel(directory.socket("s"), options: .patient)
    for (stamp, asked, expected) in [
      ("a", "b", "a"), (nil, "b", "b"), (nil, nil, "none"),
    ] as [(String?, String?, String)] {
      try await withEnds(.inProcess, server: Bridge.router(to: channel, authority: stamp)) {
        (ends: Ends) async throws in
        let error = await failure {
          _ = try await ends.client.call(
            Methods.LanguageModel.step, StepRequest(), authority: asked)
        }
        #expect(error == RPCError(.aborted, expected))
      }
    }
    channel.close()
    await service.shutDown(grace: .zero)
  }
}

extension Channel.Options {
  fileprivate static var patient: Channel.Options {
    var options = Channel.Options()
    options.connection = .patient
    options.connectTimeout = .seconds(100)
    return options
  }
}
