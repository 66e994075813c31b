import Messages
import Tensors
import Testing

@testable import Transport

@Suite(.timeLimit(.minutes(2))) struct ConnectionTests {
  @Test("a unary call brings its response and tensors back", arguments: TestCarrier.allCases)
  func unary(carrier: TestCarrier) async throws {
    try await withEnds(carrier, server: echoRouter()) { (ends: Ends) async throws in
      let large = ramp([129, 257])
      let bytes = Tensor(uninitialized: .uint8, [5])
      bytes.withElements(of: UInt8.self) { _ = $0.initialize(from: [1, 2, 3, 254, 255]) }
      let reply = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(steps: [SequenceStep(sequence: 42)]),
        tensors: [
          Attachment(large, name: "large"), Attachment(ramp([3]).reshaped([3, 1])),
          Attachment(Tensor(zeros: .bfloat16, [0, 7]), name: "empty"), Attachment(bytes),
          Attachment(ramp([]), name: "scalar"), Attachment(large.rows(3..<50), name: "view"),
        ], deadline: .after(.seconds(30)))
      #expect(reply.message.results.map(\.sequence) == [42])
      #expect(reply.tensors.map(\.name) == ["large", nil, "empty", nil, "scalar", "view"])
      #expect(
        reply.tensors.map(\.tensor.shape) == [[129, 257], [3, 1], [0, 7], [5], [], [47, 257]])
      #expect(reply.tensors[0].tensor.hasSameBytes(as: large))
      #expect(reply.tensors[1].tensor.floats == ramp([3]).floats)
      #expect(reply.tensors[2].tensor.scalarType == .bfloat16)
      #expect(
        reply.tensors[3].tensor.withElements(of: UInt8.self) { Array($0) } == [1, 2, 3, 254, 255])
      #expect(reply.tensor(named: "view")?.floats == large.rows(3..<50).floats)
    }
  }

  @Test("a stream brings all responses, in order", arguments: TestCarrier.allCases)
  func stream(carrier: TestCarrier) async throws {
    var router = Router()
    router.handleStream(Methods.Gateway.chat) { request, _, writer in
      for index in 0..<300 {
        try await writer.write(
          ChatEvent(text: "\(request.message.turns[0].text)\(index)"),
          tensors: index % 50 == 0 ? [Attachment(ramp([index * 10]))] : [])
      }
    }
    try await withEnds(carrier, server: router) { (ends: Ends) async throws in
      var texts: [String] = []
      for try await event in ends.client.stream(
        Methods.Gateway.chat, ChatRequest(turns: [ChatTurn(role: "user", text: "n")]))
      {
        let index = texts.count
        if index % 50 == 0 {
          #expect(event.tensors[0].tensor.hasSameBytes(as: ramp([index * 10])))
        }
        texts.append(event.message.text)
      }
      #expect(texts == (0..<300).map { "n\($0)" })
    }
  }

  @Test("a slow reader holds the sender of a stream back", arguments: TestCarrier.allCases)
  func streamBackPressure(carrier: TestCarrier) async throws {
    let written = Notes<Int>()
    var router = Router()
    router.handleStream(Methods.Gateway.chat) { _, _, writer in
      for index in 0..<100 {
        try await writer.write(ChatEvent(text: "x"))
        written.add(index)
      }
    }
    var options = ConnectionOptions.patient
    options.streamWindow = 8
    try await withEnds(carrier, server: router, options: options) { (ends: Ends) async throws in
      var iterator = ends.client.stream(Methods.Gateway.chat, ChatRequest()).makeAsyncIterator()
      _ = try await iterator.next()
      _ = try await written.wait(for: 8)
      // A call after it comes through, though the stream stands still.
      _ = await failure {
        _ = try await ends.client.call(Methods.Stage.describe, DescribeRequest())
      }
      #expect(written.all.count <= 9)
      var count = 1
      while try await iterator.next() != nil { count += 1 }
      #expect(count == 100)
    }
  }

  @Test("letting go of a stream cancels its handler", arguments: TestCarrier.allCases)
  func abandonedStream(carrier: TestCarrier) async throws {
    let ended = Notes<String>()
    var router = Router()
    router.handleStream(Methods.Gateway.chat) { _, _, writer in
      do {
        while true { try await writer.write(ChatEvent(text: "x")) }
      } catch {
        ended.add("\((error as? RPCError)?.code ?? .unknown)")
        throw error
      }
    }
    try await withEnds(carrier, server: router) { (ends: Ends) async throws in
      for try await _ in ends.client.stream(Methods.Gateway.chat, ChatRequest()) { break }
      #expect(try await ended.wait(for: 1) == ["CANCELLED"])
    }
  }

  @Test("a stream's error comes after its responses", arguments: TestCarrier.allCases)
  func failingStream(carrier: TestCarrier) async throws {
    var router = Router()
    router.handleStream(Methods.Gateway.chat) { _, _, writer in
      try await writer.write(ChatEvent(text: "one"))
      throw RPCError(.aborted, "half way")
    }
    try await withEnds(carrier, server: router) { (ends: Ends) async throws in
      var iterator = ends.client.stream(Methods.Gateway.chat, ChatRequest()).makeAsyncIterator()
      #expect(try await iterator.next()?.message.text == "one")
      await #expect(throws: RPCError(.aborted, "half way")) { _ = try await iterator.next() }
      #expect(try await iterator.next() == nil)
    }
  }

  @Test(
    "cancelling the caller's task ends the call at once and cancels the handler",
    arguments: TestCarrier.allCases)
  func cancel(carrier: TestCarrier) async throws {
    let events = Notes<String>()
    try await withEnds(carrier, server: waitingRouter(events)) { (ends: Ends) async throws in
      let call = Task {
        await failure { _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest()) }
      }
      _ = try await events.wait(for: 1)
      call.cancel()
      #expect(await call.value?.code == .cancelled)
      #expect(try await events.wait(for: 2) == ["began", "cancelled"])
      // The connection goes on.
      let next = await failure {
        _ = try await ends.client.call(Methods.Stage.describe, DescribeRequest())
      }
      #expect(next?.code == .unimplemented)
    }
  }

  @Test("a cancelled task makes no call", arguments: [TestCarrier.inProcess])
  func cancelledBefore(carrier: TestCarrier) async throws {
    let events = Notes<String>()
    try await withEnds(carrier, server: waitingRouter(events)) { (ends: Ends) async throws in
      let call = Task {
        withUnsafeCurrentTask { $0?.cancel() }
        return await failure {
          _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest())
        }
      }
      #expect(await call.value?.code == .cancelled)
      #expect(events.all.isEmpty)
    }
  }

  @Test("a deadline ends the call on both sides", arguments: TestCarrier.allCases)
  func deadline(carrier: TestCarrier) async throws {
    let events = Notes<String>()
    try await withEnds(carrier, server: waitingRouter(events)) { (ends: Ends) async throws in
      let error = await failure {
        _ = try await ends.client.call(
          Methods.LanguageModel.step, StepRequest(), deadline: .after(.milliseconds(60)))
      }
      #expect(error?.code == .deadlineExceeded)
      #expect(try await events.wait(for: 2) == ["began", "cancelled"])
      let passed = await failure {
        _ = try await ends.client.call(
          Methods.LanguageModel.step, StepRequest(), deadline: .after(.zero))
      }
      #expect(passed?.code == .deadlineExceeded)
      #expect(events.all.count == 2)
    }
  }

  @Test("the handler's side keeps a deadline of its own", arguments: [TestCarrier.inProcess])
  func serverDeadline(carrier: TestCarrier) async throws {
    let events = Notes<String>()
    try await withEnds(carrier, server: waitingRouter(events)) { (ends: Ends) async throws in
      // A caller that does not keep its deadline itself.
      let call: OutgoingCall = ends.client.state.withLock {
        let call = OutgoingCall(number: $0.nextNumber, method: "m")
        $0.nextNumber += 2
        $0.outgoing[call.number] = call
        return call
      }
      ends.client.outbox.send(
        Frame(
          kind: .request, call: call.number, method: Methods.LanguageModel.step.name,
          timeoutMicroseconds: 20_000, message: []))
      guard case .ended(.failure(let error)) = await call.next() else {
        Issue.record("the call did not fail")
        return
      }
      #expect(error.code == .deadlineExceeded)
      #expect(try await events.wait(for: 2) == ["began", "cancelled"])
    }
  }

  @Test(
    "a dying connection ends its calls, naming the peer, and cancels its handlers",
    arguments: TestCarrier.allCases)
  func death(carrier: TestCarrier) async throws {
    let events = Notes<String>()
    try await withEnds(carrier, server: waitingRouter(events)) { (ends: Ends) async throws in
      async let first = failure {
        _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest())
      }
      async let second = failure {
        for try await _ in ends.client.stream(Methods.Gateway.chat, ChatRequest()) {}
      }
      _ = try await events.wait(for: 2)
      ends.server.close()
      let errors = await [first, second]
      for error in errors {
        #expect(error?.code == .unavailable)
        #expect(error?.message.contains(ends.client.peer) == true)
      }
      #expect(try await events.wait(for: 4).filter { $0 == "cancelled" }.count == 2)
      await ends.client.closed()
      #expect(!ends.client.isOpen)
      let later = await failure {
        _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest())
      }
      #expect(later?.code == .unavailable)
    }
  }

  @Test("29 MB come through whole, both ways", arguments: TestCarrier.allCases)
  func large(carrier: TestCarrier) async throws {
    try await withEnds(carrier, server: echoRouter()) { (ends: Ends) async throws in
      let tensor = ramp([1025, 7168])
      let reply = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor)])
      #expect(reply.tensors[0].tensor.hasSameBytes(as: tensor))
    }
  }

  @Test("big tensors both ways at once do not block each other", arguments: TestCarrier.allCases)
  func duplex(carrier: TestCarrier) async throws {
    var options = ConnectionOptions.patient
    options.arenaBytes = 0
    try await withEnds(carrier, client: echoRouter(), server: echoRouter(), options: options) {
      (ends: Ends) async throws in
      let tensor = ramp([1000, 1000])
      try await withThrowingTaskGroup(of: Int.self) { group in
        for connection in [ends.client, ends.server, ends.client, ends.server] {
          group.addTask {
            try await connection.call(
              Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor)]
            ).tensors[0].tensor.count
          }
        }
        for try await count in group { #expect(count == 1_000_000) }
      }
    }
  }

  @Test("the accepting side calls, too", arguments: TestCarrier.allCases)
  func bothWays(carrier: TestCarrier) async throws {
    var router = Router()
    router.handle(Methods.LanguageModel.end) { _, context in
      // A handler that calls its caller back.
      _ = try await context.connection.call(Methods.LanguageModel.step, StepRequest())
      return Payload(EndReply())
    }
    try await withEnds(carrier, client: echoRouter(), server: router) { (ends: Ends) async throws in
      _ = try await ends.client.call(Methods.LanguageModel.end, EndRequest())
      let reply = try await ends.server.call(
        Methods.LanguageModel.step, StepRequest(steps: [SequenceStep()]))
      #expect(reply.message.results.count == 1)
    }
  }

  @Test("many calls at once each get their own answer", arguments: TestCarrier.allCases)
  func concurrent(carrier: TestCarrier) async throws {
    try await withEnds(carrier, server: echoRouter()) { (ends: Ends) async throws in
      try await withThrowingTaskGroup(of: Bool.self) { group in
        for index in 0..<400 {
          group.addTask {
            let tensor = ramp([index * 13])
            let reply = try await ends.client.call(
              Methods.LanguageModel.step,
              StepRequest(steps: [SequenceStep(sequence: UInt64(index))]),
              tensors: [Attachment(tensor)], deadline: .after(.seconds(60)))
            return reply.message.results[0].sequence == UInt64(index)
              && reply.tensors[0].tensor.hasSameBytes(as: tensor)
          }
        }
        for try await isRight in group { #expect(isRight) }
      }
    }
  }

  struct Refused: StatusConvertible, CustomStringConvertible {
    let statusCode = StatusCode.outOfRange
    let description = "beyond the end"
  }
  struct Odd: Error, CustomStringConvertible {
    let description = "odd"
  }

  @Test("a handler's error becomes the status its kind says")
  func errors() async throws {
    var router = Router()
    router.handle(Methods.LanguageModel.step) { request, _ in
      switch request.message.steps.count {
      case 0: throw RPCError(.failedPrecondition, "not loaded")
      case 1: throw Refused()
      case 2: throw Odd()
      default: throw CancellationError()
      }
    }
    router.handleImmediately(Methods.LanguageModel.end) { _, _ in throw Refused() }
    try await withEnds(.inProcess, server: router) { (ends: Ends) async throws in
      let expected = [
        RPCError(.failedPrecondition, "not loaded"), RPCError(.outOfRange, "beyond the end"),
        RPCError(.internal, "odd"), RPCError(.cancelled, "the handler was cancelled"),
      ]
      for (count, error) in expected.enumerated() {
        let steps = Array(repeating: SequenceStep(), count: count)
        let found = await failure {
          _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest(steps: steps))
        }
        #expect(found == error)
      }
      let found = await failure {
        _ = try await ends.client.call(Methods.LanguageModel.end, EndRequest())
      }
      #expect(found == RPCError(.outOfRange, "beyond the end"))
      let missing = await failure {
        _ = try await ends.client.call(Methods.Projector.project, EncodeRequest())
      }
      #expect(missing?.code == .unimplemented)
      #expect(missing?.message.contains("chiasm.v1.Projector/Project") == true)
    }
  }

  @Test("a request that is no message is INVALID_ARGUMENT, and the connection goes on")
  func undecodableRequest() async throws {
    try await withEnds(.inProcess, server: echoRouter()) { (ends: Ends) async throws in
      let error = await failure {
        _ = try await ends.client.begin(
          Methods.LanguageModel.step.name, RawPayload(message: [255])
        ).next()
      }
      #expect(error?.code == .invalidArgument)
      _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest())
    }
  }

  @Test("more calls at a time than allowed are RESOURCE_EXHAUSTED")
  func tooManyCalls() async throws {
    let events = Notes<String>()
    var options = ConnectionOptions.patient
    options.maximumCalls = 3
    try await withEnds(.inProcess, server: waitingRouter(events), options: options) {
      (ends: Ends) async throws in
      let waiting = (0..<3).map { _ in
        Task { try await ends.client.call(Methods.LanguageModel.step, StepRequest()) }
      }
      _ = try await events.wait(for: 3)
      let error = await failure {
        _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest())
      }
      #expect(error?.code == .resourceExhausted)
      for call in waiting { call.cancel() }
      _ = try await events.wait(for: 6)
    }
  }

  @Test("what the peer would not read is refused before it is sent")
  func outgoingLimits() async throws {
    try await withEnds(.inProcess, server: echoRouter()) { (ends: Ends) async throws in
      let long = await failure {
        _ = try await ends.client.begin(
          "m", RawPayload(message: Array(repeating: 0, count: 5 << 20)))
      }
      #expect(long?.code == .resourceExhausted)
      let many = await failure {
        _ = try await ends.client.call(
          Methods.LanguageModel.step, StepRequest(),
          tensors: Array(repeating: Attachment(ramp([1])), count: 65))
      }
      #expect(many?.code == .resourceExhausted)
      let deep = await failure {
        _ = try await ends.client.call(
          Methods.LanguageModel.step, StepRequest(),
          tensors: [Attachment(ramp([1]).reshaped(Array(repeating: 1, count: 9)))])
      }
      #expect(deep?.code == .invalidArgument)
      _ = try await ends.client.call(Methods.LanguageModel.step, StepRequest())
    }
  }

  @Test("a peer that reads nothing makes callers wait, not the queue grow")
  func outboundBackPressure() async throws {
    var options = ConnectionOptions.patient
    options.maximumQueuedBytes = 1 << 20
    options.arenaBytes = 0
    let (one, two) = try Dialer.pair()
    let connection = Connection(
      carrier: one, isInitiator: true, options: options, router: Router())
    connection.start()
    // The other end says hello and reads nothing.
    let silent = Outbox(carrier: two, limit: 1 << 20)
    silent.send(Frame(kind: .hello, version: 1))
    try await connection.ready.value(whenCancelled: .cancelled("the test"))
    var errors: [RPCError?] = []
    for _ in 0..<4 {
      errors.append(
        await failure {
          _ = try await connection.call(
            Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(ramp([1 << 20]))],
            deadline: .after(.milliseconds(100)))
        })
    }
    #expect(errors.allSatisfy { $0?.code == .deadlineExceeded })
    #expect(errors.last??.message.contains("waiting for") == true)
    connection.close()
    await connection.closed()
    two.close()
  }

  @Test("a peer that says no hello is given up")
  func noHello() async throws {
    var options = ConnectionOptions()
    options.handshakeTimeout = .milliseconds(30)
    let (one, two) = try Dialer.pair()
    let connection = Connection(carrier: one, isInitiator: true, options: options, router: Router())
    connection.start()
    await connection.closed()
    #expect(connection.closeReason?.code == .unavailable)
    #expect(connection.closeReason?.message.contains("hello") == true)
    two.close()
  }

  /// Handlers that wait for their cancellation.
  private func waitingRouter(_ events: Notes<String>) -> Router {
    @Sendable func wait() async throws {
      events.add("began")
      do {
        try await Task.sleep(for: .seconds(100))
      } catch {
        events.add("cancelled")
        throw error
      }
    }
    var router = Router()
    router.handle(Methods.LanguageModel.step) { _, _ in
      try await wait()
      return Payload(StepReply())
    }
    router.handleStream(Methods.Gateway.chat) { _, _, _ in try await wait() }
    return router
  }
}
