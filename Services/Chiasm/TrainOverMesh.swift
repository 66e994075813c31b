import ArgumentParser
import Checkpoint
import Sequencer
import Synchronization
import Training
import Transport
import UnixSignals

/// A run that a gateway makes, taken up again when the gateway itself was lost.
struct TrainOverMesh: Sendable {
  let gateway: Endpoint
  let interest: RunInterest
  let ownsMesh: Bool

  private static let attempts = 5

  func run(_ configuration: TrainingConfiguration) async throws {
    var configuration = configuration
    var vain = 0
    var done = -1
    /// The last step of this call.
    var end: Int?
    interest.canEnd {
      await stop()
    } atOnce: {
      await cancel()
    }
    while true {
      let client = TrainingClient(gateway)
      defer { client.close() }
      var hasEnded = false
      var hasStarted = false
      var reached = done
      do {
        try await client.train(configuration) { event in
          if case .step(let log, _, _) = event { reached = max(reached, log.step) }
          if case .ended = event { hasEnded = true }
          if case .started(let start) = event {
            hasStarted = true
            if end == nil { end = configuration.stopAfter.map { start.step + $0 } }
          }
          interest.show(event)
        }
        if hasEnded { return }
        throw RPCError(.unavailable, "the gateway ended the run's stream early")
      } catch let error as RPCError {
        vain = reached > done ? 0 : vain + 1
        done = reached
        guard ownsMesh, !hasEnded, error.code == .unavailable, vain < TrainOverMesh.attempts,
          !Task.isCancelled, !interest.wantsEnd
        else { throw advised(error, hasStarted: hasStarted || done >= 0) }
        interest.screen.put("the gateway was lost: \(error.message)")
        try await wait()
        // What it had done is on disk; a run that had not begun has to find its folder unused.
        if hasStarted { configuration.resume = true }
        if let end {
          let saved = CheckpointFolder.latestValid(in: configuration.output).found?.step ?? 0
          configuration.stopAfter = max(1, end - saved)
        }
        interest.screen.put("the gateway is back")
      }
    }
  }

  /// The error with what can be done about it, where it does not say so itself.
  private func advised(_ error: RPCError, hasStarted: Bool) -> RPCError {
    switch error.code {
    case .unavailable where !hasStarted && !ownsMesh:
      RPCError(
        .unavailable,
        "\(error.message); start a mesh with chiasm up, or leave --connect out and give "
          + "--vision-stages and --language-stages, which start one")
    case .unavailable, .cancelled, .aborted, .deadlineExceeded:
      error.message.contains("--resume")
        ? error
        : RPCError(
          error.code,
          "the run has ended: \(error.message); go on from its last checkpoint with --resume")
    default: error
    }
  }

  /// Waits until the gateway answers again.
  private func wait() async throws {
    let deadline = ContinuousClock.now + .seconds(180)
    while true {
      let client = ChatClient(gateway)
      defer { client.close() }
      do {
        _ = try await client.describe()
        return
      } catch {
        guard ContinuousClock.now < deadline, !Task.isCancelled else { throw error }
        try await Task.sleep(for: .milliseconds(100))
      }
    }
  }

  /// Asks the run under way to end after its step, until it is heard.
  private func stop() async {
    while !Task.isCancelled {
      let client = TrainingClient(gateway)
      defer { client.close() }
      do {
        try await client.stop()
        return
      } catch {
        // The gateway, or the run in it, may be about to come back.
        try? await Task.sleep(for: .milliseconds(100))
      }
    }
  }

  /// Asks the run under way to end at once, if there is time to.
  private func cancel() async {
    let client = TrainingClient(gateway)
    defer { client.close() }
    await withTaskGroup(of: Void.self) { group in
      group.addTask { try? await client.cancel() }
      group.addTask { try? await Task.sleep(for: .seconds(1)) }
      await group.next()
      group.cancelAll()
    }
  }
}

/// What somebody at the terminal hears of a run, and wants of it.
final class RunInterest: Sendable {
  typealias Asking = @Sendable () async -> Void

  private struct State {
    var hasStarted = false
    var wantsEnd = false
    var end: Asking?
    var endAtOnce: Asking?
    var isSaved = true
  }

  let screen: TrainScreen
  private let state = Mutex(State())

  init(_ screen: TrainScreen) { self.screen = screen }

  var wantsEnd: Bool { state.withLock { $0.wantsEnd } }

  /// - Parameters:
  ///   - end: has the run end after the step under way.
  ///   - endAtOnce: has it end at once; nil: cancellation does.
  func canEnd(_ end: @escaping Asking, atOnce endAtOnce: Asking? = nil) {
    state.withLock {
      $0.end = end
      $0.endAtOnce = endAtOnce
    }
  }

  func show(_ event: TrainingEvent) {
    state.withLock { state in
      if case .started = event { state.hasStarted = true }
      if case .ended(let end) = event { state.isSaved = end.isSaved }
    }
    screen.show(event)
  }

  /// The first wish for an end.
  ///
  /// - Returns: what brings the end about; nil when nothing was done yet that is worth keeping.
  func wish() -> Asking? {
    let (end, hasStarted) = state.withLock { state in
      state.wantsEnd = true
      return (state.end, state.hasStarted)
    }
    guard hasStarted, let end else {
      screen.put("interrupted before the first step")
      return nil
    }
    screen.put("ending after this step; Ctrl-C again ends at once")
    return end
  }

  /// The second one.
  func insist() async {
    screen.put("interrupted; go on from the last checkpoint with --resume")
    await state.withLock { $0.endAtOnce }?()
  }

  /// - Throws: a failure's exit code when the last step is not on disk; a warning says so.
  func requireSaved() throws {
    guard state.withLock({ $0.isSaved }) else { throw ExitCode.failure }
  }
}

extension Interruption {
  /// Runs `body`. The first signal to end has the run end, or cancels `body` where it has not
  /// begun; the second cancels it.
  ///
  /// - Throws: what `body` throws; ``exitCode`` when a signal cancelled it.
  static func ending(
    _ interest: RunInterest, body: @escaping @Sendable () async throws -> Void
  ) async throws {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    try await withThrowingTaskGroup(of: Bool.self) { group in
      group.addTask {
        try await body()
        return true
      }
      group.addTask {
        try await withThrowingDiscardingTaskGroup { asking in
          var count = 0
          for await _ in signals {
            count += 1
            if count > 1 {
              await interest.insist()
              throw exitCode
            }
            guard let end = interest.wish() else { throw exitCode }
            asking.addTask { await end() }
          }
        }
        return false
      }
      defer { group.cancelAll() }
      while let isDone = try await group.next() {
        if isDone { return }
      }
    }
  }
}
