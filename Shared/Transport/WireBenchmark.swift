import CPlatform
import Messages
import Tensors
import Threads

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What calls and hand-overs cost over a Unix socket on this machine.
///
/// Both ends are in this process, each with its own threads, so that the processor time counted
/// is that of both.
public struct WireBenchmark: Sendable {
  /// Median time of a unary call from a task on a thread of its own, as the gateway's scheduler
  /// has, to a handler on the thread that computes, as in the last language stage.
  public var roundTrip: Duration
  /// Median time of the same bytes between two threads and a bare socket pair, both of which
  /// sleep while they wait: what the waking of threads alone costs on this machine at the moment.
  public var bareRoundTrip: Duration
  /// Median time of a unary call answered on the connection's thread.
  public var immediateRoundTrip: Duration
  /// Processor time of handing a tensor of 29 MB over, written in place.
  public var arenaHandover: Duration
  /// Processor time of copying the same tensor from elsewhere into the arena and handing it over.
  public var copiedHandover: Duration
  /// Processor time of the same with the elements after the message, in the stream.
  public var streamHandover: Duration
  /// Processor time of packing and unpacking the same bytes inside a message, unsent.
  public var insideMessage: Duration

  /// - Parameters:
  ///   - directory: where the socket is made; of this user alone.
  ///   - calls: round trips measured.
  ///   - handovers: tensors handed over in each way.
  public static func run(
    directory: String, calls: Int = 2000, handovers: Int = 20
  ) async throws -> WireBenchmark {
    precondition(calls > 0 && handovers > 0)
    let endpoint = Endpoint.unix(path: "\(directory)/wire-benchmark-\(getpid())")
    var router = Router()
    router.handle(Methods.LanguageModel.step, on: DedicatedThread(name: "handler")) { _, _ in
      Payload(StepReply())
    }
    HealthService().register(in: &router)
    let server = try Server(endpoint, router: router)
    async let serving: Void = server.run()
    do {
      let result = try await withTaskExecutorPreference(DedicatedThread(name: "caller")) {
        try await measure(endpoint, calls, handovers)
      }
      await server.shutDown(grace: .zero)
      try await serving
      return result
    } catch {
      await server.shutDown(grace: .zero)
      throw error
    }
  }

  private static func measure(
    _ endpoint: Endpoint, _ calls: Int, _ handovers: Int
  ) async throws -> WireBenchmark {
    let connection = try await Connection.connect(to: endpoint, deadline: .after(.seconds(10)))
    defer { connection.close() }
    var streaming = ConnectionOptions()
    streaming.arenaBytes = 0
    let stream = try await Connection.connect(
      to: endpoint, options: streaming, deadline: .after(.seconds(10)))
    defer { stream.close() }
    let shape = [1025, 7168]
    let source = Tensor(zeros: .float32, shape)

    func handOver(_ connection: Connection, _ tensor: Tensor) async throws {
      _ = try await connection.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor)],
        deadline: .after(.seconds(60)))
    }
    let roundTrip = try await median(calls) {
      _ = try await connection.call(
        Methods.LanguageModel.step, StepRequest(), deadline: .after(.seconds(60)))
    }
    let immediate = try await median(calls) {
      _ = try await connection.call(
        Methods.Health.check, HealthCheckRequest(), deadline: .after(.seconds(60)))
    }
    // Written in place by whoever computes it: the writing itself is not the wire's cost.
    let arena = try await processorTime(handovers) {
      try await handOver(connection, try await connection.allocate(.float32, shape))
    }
    let copied = try await processorTime(handovers) { try await handOver(connection, source) }
    let streamed = try await processorTime(handovers) { try await handOver(stream, source) }
    let bytes = source.withElements(of: UInt32.self) { Array(UnsafeRawBufferPointer($0)) }
    let inside = try await processorTime(handovers) {
      _ = try Frame.decode(Frame(kind: .request, message: bytes).encoded())
    }
    // On a thread of its own, since it blocks.
    let bare = try await DedicatedThread(name: "bare").run { _ in
      wire_baseline_round_trip(Int32(clamping: calls))
    }
    guard bare >= 0 else {
      throw TransportError.system(what: "a bare round trip", errno: Int32(-bare))
    }
    return WireBenchmark(
      roundTrip: roundTrip, bareRoundTrip: .nanoseconds(Int64(bare * 1000)),
      immediateRoundTrip: immediate, arenaHandover: arena,
      copiedHandover: copied, streamHandover: streamed, insideMessage: inside)
  }

  private static func median(
    _ count: Int, _ body: () async throws -> Void
  ) async throws -> Duration {
    for _ in 0..<min(count, 100) { try await body() }
    var times: [Duration] = []
    times.reserveCapacity(count)
    let clock = ContinuousClock()
    for _ in 0..<count {
      let start = clock.now
      try await body()
      times.append(start.duration(to: clock.now))
    }
    times.sort()
    return times[count / 2]
  }

  private static func processorTime(
    _ count: Int, _ body: () async throws -> Void
  ) async throws -> Duration {
    for _ in 0..<min(count, 3) { try await body() }
    let start = processorTime()
    for _ in 0..<count { try await body() }
    return (processorTime() - start) / count
  }

  /// Of all threads of the process, in user and kernel mode.
  private static func processorTime() -> Duration {
    var usage = rusage()
    getrusage(Int32(RUSAGE_SELF.rawValue), &usage)
    func duration(_ time: timeval) -> Duration {
      .seconds(Int64(time.tv_sec)) + .microseconds(Int64(time.tv_usec))
    }
    return duration(usage.ru_utime) + duration(usage.ru_stime)
  }
}
