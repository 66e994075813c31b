import Synchronization

/// What a supervisor knows of one service.
struct ServiceEntry {
  let prepared: PreparedService
  var state: ServiceState = .waiting
  var child: ChildProcess?
  /// Of the child, in clock ticks since boot.
  var startTicks: UInt64?
  var startedAt: ContinuousClock.Instant?
  /// Of the child; nil: it has not been healthy yet.
  var healthySince: ContinuousClock.Instant?
  /// Of any of its processes.
  var hasStarted = false
  var hasBeenHealthy = false
  var restarts = 0
  /// Without a steady time in between.
  var restartsInRow = 0
  var lastExit: ExitStatus?
  var lastUsage: (at: ContinuousClock.Instant, cpuSeconds: Double)?
  let lines = LineRing()

  init(_ prepared: PreparedService) {
    self.prepared = prepared
  }

  var name: String { prepared.service.name }
}

/// Why a process was ended that did not end by itself.
struct HealthComplaint: Equatable, Sendable {
  /// After its start.
  var seconds: Int
  var reason: String
}

/// The last lines of a stream.
final class LineRing: Sendable {
  static let capacity = 50

  private let lines = Mutex<[String]>([])

  func append(_ line: String) {
    lines.withLock { lines in
      if lines.count == Self.capacity { lines.removeFirst() }
      lines.append(line)
    }
  }

  var all: [String] { lines.withLock { $0 } }
}
