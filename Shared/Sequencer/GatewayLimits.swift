/// Bounds of what a gateway takes on.
public struct GatewayLimits: Sendable {
  /// Answers being computed at once.
  public var running = 32
  /// Requests that wait for their turn; one more is refused with RESOURCE_EXHAUSTED.
  public var waiting = 256
  /// Tokens of one pass through the language stages.
  public var stepTokens = 256
  /// Tokens of an answer for which none were asked.
  public var defaultMaxTokens = 1024
  /// How long a request waits for a stage that is down.
  public var stageWait = Duration.seconds(20)
  /// How long after one answer about its health a stage is asked for the next.
  public var heartbeat: Duration = .seconds(5)
  /// How long a stage may keep silent about its health before it counts as gone.
  public var silence: Duration = .seconds(10)
  /// Pictures of one request.
  public var pictures = 32
  /// Bytes of one picture's file.
  public var pictureBytes = 64 << 20

  public init() {}
}
