/// Where a service stands.
public enum ServiceState: String, Codable, Sendable, Equatable {
  /// For the services it depends on.
  case waiting
  /// Runs, and has not been healthy yet.
  case starting
  case healthy
  /// Runs, and fails its checks. It is left alone: a busy stage may answer late.
  case unhealthy
  /// Ended, and is about to be started again.
  case restarting
  case stopping
  /// Ended, and stays so.
  case stopped
  case failed
}

/// What a stage says it is and holds, as `Stage/Describe` does.
public struct StageFacts: Codable, Sendable, Equatable {
  /// "vision", "projector" or "language".
  public var role: String
  public var firstLayer: Int
  /// One past the last layer held.
  public var endLayer: Int
  /// Layers of the whole part.
  public var layerCount: Int
  public var device: String
  public var weightBytes: UInt64
  public var cacheTokens: UInt64
  public var cacheTokensUsed: UInt64

  public init(
    role: String, firstLayer: Int, endLayer: Int, layerCount: Int, device: String,
    weightBytes: UInt64, cacheTokens: UInt64 = 0, cacheTokensUsed: UInt64 = 0
  ) {
    self.role = role
    self.firstLayer = firstLayer
    self.endLayer = endLayer
    self.layerCount = layerCount
    self.device = device
    self.weightBytes = weightBytes
    self.cacheTokens = cacheTokens
    self.cacheTokensUsed = cacheTokensUsed
  }
}

/// One row of a mesh's table.
public struct ServiceStatus: Codable, Sendable, Equatable {
  public var name: String
  public var state: ServiceState
  public var process: Int?
  public var address: String?
  public var restarts: Int
  public var residentBytes: UInt64?
  /// Processor time since the process started.
  public var cpuSeconds: Double?
  /// Processors kept busy since the last snapshot; nil in the first.
  public var cpuLoad: Double?
  public var uptimeSeconds: Double?
  /// How the last process of the service ended.
  public var lastExit: String?
  /// nil for services that are no stages, or do not answer.
  public var stage: StageFacts?

  public init(
    name: String, state: ServiceState, process: Int? = nil, address: String? = nil,
    restarts: Int = 0, residentBytes: UInt64? = nil, cpuSeconds: Double? = nil,
    cpuLoad: Double? = nil, uptimeSeconds: Double? = nil, lastExit: String? = nil,
    stage: StageFacts? = nil
  ) {
    self.name = name
    self.state = state
    self.process = process
    self.address = address
    self.restarts = restarts
    self.residentBytes = residentBytes
    self.cpuSeconds = cpuSeconds
    self.cpuLoad = cpuLoad
    self.uptimeSeconds = uptimeSeconds
    self.lastExit = lastExit
    self.stage = stage
  }
}

/// What happens to the services of a mesh.
public enum MeshEvent: Sendable, Equatable {
  case starting(service: String, process: Int)
  case healthy(service: String)
  case unhealthy(service: String, reason: String)
  case exited(service: String, ExitStatus)
  case restarting(service: String, after: Duration)
  /// Asked to end.
  case stopping(service: String)
  /// Ended, and stays so.
  case stopped(service: String)
  /// All services are healthy.
  case ready
}

/// A line that a service printed.
public struct ServiceLine: Sendable, Equatable {
  public var service: String
  public var isError: Bool
  public var text: String
}
