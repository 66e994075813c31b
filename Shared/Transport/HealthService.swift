import Messages
import Synchronization

/// Says which services of a process take calls, as gRPC's health service does.
///
/// The name "" stands for the server as a whole.
public final class HealthService: Sendable {
  private struct State {
    var statuses: [String: ServingStatus]
    var watchers: [Int: (service: String, changes: AsyncStream<ServingStatus>.Continuation)] = [:]
    var next = 0
  }
  private let state: Mutex<State>

  /// - Parameter overall: the status of the server as a whole.
  public init(overall: ServingStatus = .serving) {
    state = Mutex(State(statuses: ["": overall]))
  }

  /// Sets a service's status and tells those who watch it.
  public func set(_ service: String, _ status: ServingStatus) {
    state.withLock { state in
      guard state.statuses[service] != status else { return }
      state.statuses[service] = status
      for watcher in state.watchers.values where watcher.service == service {
        watcher.changes.yield(status)
      }
    }
  }

  /// Answers Health/Check and Health/Watch.
  public func register(in router: inout Router) {
    router.handleImmediately(Methods.Health.check) { [self] request, _ in
      let service = request.message.service
      guard let status = state.withLock({ $0.statuses[service] }) else {
        throw RPCError(.notFound, "no service \"\(service)\" here")
      }
      return Payload(HealthCheckResponse(status: status))
    }
    router.handleStream(Methods.Health.watch) { [self] request, _, writer in
      let (number, changes) = watch(request.message.service)
      defer { state.withLock { _ = $0.watchers.removeValue(forKey: number) } }
      var last: ServingStatus?
      for await status in changes where status != last {
        try await writer.write(HealthCheckResponse(status: status))
        last = status
      }
    }
  }

  /// Statuses from now on. Only the newest one waits for a slow watcher.
  private func watch(_ service: String) -> (Int, AsyncStream<ServingStatus>) {
    let (changes, continuation) = AsyncStream.makeStream(
      of: ServingStatus.self, bufferingPolicy: .bufferingNewest(1))
    return state.withLock { state in
      state.next += 1
      state.watchers[state.next] = (service, continuation)
      continuation.yield(state.statuses[service] ?? .serviceUnknown)
      return (state.next, changes)
    }
  }
}
