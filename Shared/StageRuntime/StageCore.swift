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
  private let nextAttachment = Atomic<Int>(0)
  /// For each attached session the number of its latest Attach call.
  private let attachments = Mutex<[UInt32: Int]>([:])
  private let leavers = Mutex<[@Sendable (Connection) async -> Void]>([])

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
  /// - Parameter isLimited: false: for those who come one at a time and may not be refused.
  /// - Throws: RESOURCE_EXHAUSTED when too many calls wait already.
  func compute<Result: Sendable>(
    isLimited: Bool = true,
    _ body: @escaping @Sendable (CancellationFlag) throws -> Result
  ) async throws -> (Result, microseconds: Int) {
    guard !isLimited || thread.waiting < StageCore.queueLimit else {
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

  /// Runs `body` on the computing thread, whoever has stopped waiting for it and however many
  /// calls wait: giving memory back is neither refused nor cancelled.
  func giveBack(_ body: @escaping @Sendable () -> Void) async {
    // A task of its own has no part in the caller's cancellation.
    await Task { try? await thread.run { _ in body() } }.value
  }

  /// Has `body` called whenever a session ends, with the connection that it was attached by.
  func onLeave(_ body: @escaping @Sendable (Connection) async -> Void) {
    leavers.withLock { $0.append(body) }
  }

  /// Adds the calls that every stage answers.
  ///
  /// - Parameters:
  ///   - fill: adds the state of the moment to the description.
  ///   - attach: begins a session, without what an earlier one of its number has put here.
  ///   - detach: forgets all that a session has put here, if, at that moment, its second argument
  ///     says that it has not begun anew.
  func register(
    in router: inout Router,
    fill: @escaping @Sendable (inout StageDescription) async -> Void,
    attach: @escaping @Sendable (UInt32) async -> Void,
    detach: @escaping @Sendable (UInt32, @escaping @Sendable () -> Bool) async -> Void
  ) {
    router.handle(Methods.Stage.describe) { _, _ in
      var description = self.description
      description.calls = self.calls.load(ordering: .relaxed)
      description.busyMicroseconds = self.busy.load(ordering: .relaxed)
      await fill(&description)
      return Payload(description)
    }
    router.handleStream(Methods.Stage.attach) { payload, context, writer in
      let session = payload.message.session
      let number = self.nextAttachment.add(1, ordering: .relaxed).oldValue
      self.attachments.withLock { $0[session] = number }
      await attach(session)
      // The call has no end of its own: it lasts until the gateway, or the connection, goes.
      if (try? await writer.write(Payload(AttachReply()))) != nil {
        while !Task.isCancelled { try? await Task.sleep(for: .seconds(3600)) }
      }
      // Unless the same gateway is here again over another connection.
      await detach(session) {
        self.attachments.withLock { attachments in
          guard attachments[session] == number else { return false }
          attachments[session] = nil
          return true
        }
      }
      for leave in self.leavers.withLock({ $0 }) { await leave(context.connection) }
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
