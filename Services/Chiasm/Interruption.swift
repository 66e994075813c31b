import UnixSignals

/// Ctrl-C, a closed terminal and SIGTERM as cancellation.
enum Interruption {
  /// Runs `body`, and cancels it at the first such signal.
  ///
  /// - Throws: what `body` throws; `CancellationError` when a signal ended it.
  static func cancelling<Result: Sendable>(
    _ body: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    return try await withThrowingTaskGroup(of: Result?.self) { group in
      group.addTask { try await body() }
      group.addTask {
        for await _ in signals { throw CancellationError() }
        return nil
      }
      defer { group.cancelAll() }
      while let result = try await group.next() {
        if let result { return result }
      }
      throw CancellationError()
    }
  }
}
