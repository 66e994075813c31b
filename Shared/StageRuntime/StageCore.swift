import Logging
import Messages
import Synchronization
import Threads
import Transport

/// What all kinds of stage have in common: the thread that computes, the way to the next
/// stage, the calls that describe and attach, and the counters.
final class StageCore: Sendable {
  let thread: DedicatedThread
  let next: Downstream?
  let health = HealthService()
  let logger: Logger
  private let description: StageDescription
  private let calls = Atomic<Int>(0)
  private let busy = Atomic<Int>(0)

  /// Calls that may wait for the computing thread; one more is refused.
  static let queueLimit = 256

  init(description: StageDescription, options: StageOptions, logger: Logger) {
    thread = DedicatedThread(name: "compute")
    next = options.next.map { Downstream($0, arenaBytes: options.arenaBytes) }
    self.description = description
    self.logger = logger
    health.set("", .serving)
  }

  /// Runs `body` on the computing thread and says how long it took in microseconds.
  ///
  /// - Throws: RESOURCE_EXHAUSTED when too many calls wait already.
  func compute<Result: Sendable>(
    _ body: @escaping @Sendable (CancellationFlag) throws -> Result
  ) async throws -> (Result, microseconds: Int) {
    guard thread.waiting < StageCore.queueLimit else {
      throw RPCError(
        .resourceExhausted,
        "\(thread.waiting) calls wait for this \(description.role) stage already")
    }
    return try await thread.run { flag in
      let start = ContinuousClock.now
      let result = try body(flag)
      let elapsed = Int(max(0, (ContinuousClock.now - start) / .microseconds(1)))
      self.calls.add(1, ordering: .relaxed)
      self.busy.add(elapsed, ordering: .relaxed)
      return (result, elapsed)
    }
  }

  /// Adds the calls that every stage answers.
  ///
  /// - Parameters:
  ///   - fill: adds the state of the moment to the description.
  ///   - detach: forgets all that a session has put here.
  func register(
    in router: inout Router,
    fill: @escaping @Sendable (inout StageDescription) async -> Void,
    detach: @escaping @Sendable (UInt32) async -> Void
  ) {
    router.handle(Methods.Stage.describe) { _, _ in
      var description = self.description
      description.calls = self.calls.load(ordering: .relaxed)
      description.busyMicroseconds = self.busy.load(ordering: .relaxed)
      await fill(&description)
      return Payload(description)
    }
    router.handleStream(Methods.Stage.attach) { payload, _, writer in
      let session = payload.message.session
      try await writer.write(Payload(AttachReply()))
      // The call has no end of its own: it lasts until the gateway, or the connection, goes.
      while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
      await detach(session)
    }
    health.register(in: &router)
  }
}

/// A stage as its executable, or a test, runs it.
public protocol StageService: Sendable {
  var router: Router { get }
  /// What the stage holds, for its first log line.
  var summary: String { get }
  /// Tells of a connection on which the stage is spoken to.
  func didConnect(_ connection: Connection)
}
