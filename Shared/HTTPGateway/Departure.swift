import Hummingbird
import NIOCore
import Synchronization

/// Tells those who work for a client when it closes its connection.
///
/// A client that closes only its sending side is taken for gone too, as by other servers of this
/// API: who waits for an answer keeps its connection whole.
final class Departure: ChannelInboundHandler, RemovableChannelHandler, Sendable {
  typealias InboundIn = Never

  private struct State {
    var isGone = false
    var next = 0
    var calls: [Int: @Sendable () -> Void] = [:]
  }

  private let state = Mutex(State())

  /// Calls when the client goes, at once when it is gone.
  ///
  /// - Returns: what ``forget(_:)`` wants.
  func then(_ call: @escaping @Sendable () -> Void) -> Int {
    let (number, isGone) = state.withLock { state in
      state.next += 1
      if !state.isGone { state.calls[state.next] = call }
      return (state.next, state.isGone)
    }
    if isGone { call() }
    return number
  }

  func forget(_ number: Int) {
    state.withLock { _ = $0.calls.removeValue(forKey: number) }
  }

  func channelInactive(context: ChannelHandlerContext) {
    tell()
    context.fireChannelInactive()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .inputClosed = event as? ChannelEvent {
      let hadWork = tell()
      context.fireUserInboundEventTriggered(event)
      // Nobody reads what is still written.
      if hadWork { context.close(promise: nil) }
    } else {
      context.fireUserInboundEventTriggered(event)
    }
  }

  @discardableResult
  private func tell() -> Bool {
    let calls = state.withLock { state in
      state.isGone = true
      defer { state.calls = [:] }
      return Array(state.calls.values)
    }
    for call in calls { call() }
    return !calls.isEmpty
  }
}

/// What a handler knows of a request besides its head and body.
struct GatewayContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  private let channel: any Channel

  init(source: ApplicationRequestContextSource) {
    coreContext = .init(source: source)
    channel = source.channel
  }

  func departure() async throws -> Departure {
    try await channel.pipeline.handler(type: Departure.self).get()
  }
}
