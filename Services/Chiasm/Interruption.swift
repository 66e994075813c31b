import ArgumentParser
import UnixSignals

/// Ctrl-C, a closed terminal and SIGTERM as cancellation.
enum Interruption {
  /// What a shell expects of a command that was interrupted; nothing is printed for it.
  static let exitCode = ExitCode(130)

  /// Runs `body`, and cancels it at the first such signal.
  ///
  /// - Throws: what `body` throws; ``exitCode`` when a signal ended it.
  static func cancelling<Result: Sendable>(
    _ body: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    return try await withThrowingTaskGroup(of: Result?.self) { group in
      group.addTask { try await body() }
      group.addTask {
        for await _ in signals { throw exitCode }
        return nil
      }
      defer { group.cancelAll() }
      while let result = try await group.next() {
        if let result { return result }
      }
      throw exitCode
    }
  }
}
