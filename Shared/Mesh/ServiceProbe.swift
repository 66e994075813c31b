/// How a supervisor talks to services: closures, so that it can be used, and tested, without
/// the wire.
public struct ServiceProbe: Sendable {
  /// Asks the health service at an address. An error means not healthy, and its description
  /// says why. Must end within the time given.
  public var check: @Sendable (_ address: String, _ timeout: Duration) async throws -> Void
  /// What the stage at an address holds; nil for a service that is no stage or does not answer
  /// in time.
  public var describe: @Sendable (_ address: String, _ timeout: Duration) async -> StageFacts?
  /// Listens at an address for a service that speaks over its standard input and output, whose
  /// ends it is given and has to close. Returns when the service's output ends or the task is
  /// cancelled.
  public var bridge:
    @Sendable (_ address: String, _ reading: Int32, _ writing: Int32) async throws -> Void

  public init(
    check: @escaping @Sendable (String, Duration) async throws -> Void,
    describe: @escaping @Sendable (String, Duration) async -> StageFacts? = { _, _ in nil },
    bridge: @escaping @Sendable (String, Int32, Int32) async throws -> Void
  ) {
    self.check = check
    self.describe = describe
    self.bridge = bridge
  }
}
