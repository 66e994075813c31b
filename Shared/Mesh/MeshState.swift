import Glibc

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What a supervisor writes down about its mesh, as `mesh.json` in the run directory.
public struct MeshState: Codable, Sendable, Equatable {
  public struct Service: Codable, Sendable, Equatable {
    public var name: String
    public var state: ServiceState
    public var process: Int?
    /// Start of the process in clock ticks since boot: ids are used again.
    public var startTicks: UInt64?
    public var address: String?
    public var restarts: Int
  }

  public static let version = 1
  static let byteLimit = 1 << 20

  public var version = MeshState.version
  /// The supervisor.
  public var process: Int
  public var startTicks: UInt64
  public var file: String
  public var model: String?
  public var services: [Service]

  var isAlive: Bool { ProcessTable.isAlive(process, startTicks: startTicks) }

  /// The state of a mesh that runs in the directory.
  ///
  /// - Throws: ``MeshError/noMesh(directory:)``, ``MeshError/damagedState(path:reason:)``,
  ///   ``MeshError/unreadableFile(path:reason:)``.
  public static func running(in directory: RunDirectory) throws(MeshError) -> MeshState {
    guard RunLock.isHeld(directory), let state = try read(directory) else {
      throw .noMesh(directory: directory.path)
    }
    return state
  }

  /// nil: there is no such file.
  static func read(_ directory: RunDirectory) throws(MeshError) -> MeshState? {
    let path = directory.statePath
    guard access(path, F_OK) == 0 else { return nil }
    let bytes = try BoundedFile.read(path, limit: byteLimit)
    guard bytes.count <= byteLimit else {
      throw .damagedState(path: path, reason: "it is larger than \(byteLimit) bytes")
    }
    do {
      let state = try JSONDecoder().decode(MeshState.self, from: Data(bytes))
      guard state.version == version else {
        throw MeshError.damagedState(
          path: path, reason: "its version is \(state.version), not \(version)")
      }
      return state
    } catch let error as MeshError {
      throw error
    } catch {
      throw .damagedState(path: path, reason: "it is not the JSON expected")
    }
  }

  func write(_ directory: RunDirectory) throws(MeshError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    guard let data = try? encoder.encode(self) else {
      preconditionFailure("a state of integers and strings encodes")
    }
    try directory.replace(directory.statePath, with: Array(data) + [UInt8(ascii: "\n")])
  }

  /// The rows of the table, as far as the state file and `/proc` know them.
  public func statuses() -> [ServiceStatus] {
    services.map { service in
      var status = ServiceStatus(
        name: service.name, state: service.state, process: service.process,
        address: service.address, restarts: service.restarts)
      if let process = service.process, let usage = ProcessTable.usage(process),
        usage.startTicks == service.startTicks
      {
        status.residentBytes = usage.residentBytes
        status.cpuSeconds = usage.cpuSeconds
        status.uptimeSeconds = ProcessTable.uptime(startTicks: usage.startTicks)
      }
      return status
    }
  }

  /// Asks the mesh's supervisor to stop, and waits until it has given the directory back.
  ///
  /// - Throws: ``MeshError/didNotStop(process:seconds:)``, ``MeshError/system(operation:reason:)``,
  ///   `CancellationError`.
  public func stop(_ directory: RunDirectory, within limit: Duration) async throws {
    if isAlive, kill(pid_t(process), SIGTERM) != 0, errno != ESRCH {
      throw MeshError.system(
        operation: "stopping process \(process)", reason: SystemReason.text(errno))
    }
    let deadline = ContinuousClock.now + limit
    while RunLock.isHeld(directory) {
      guard ContinuousClock.now < deadline else {
        throw MeshError.didNotStop(process: process, seconds: Int(limit.components.seconds))
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Ends processes that a dead supervisor left behind. Its guard does so at once; this is for
  /// the case that the guard was killed as well.
  func endLeftovers() {
    let left = services.compactMap { service -> (process: Int, ticks: UInt64)? in
      guard let process = service.process, process > 1, let ticks = service.startTicks,
        ProcessTable.isAlive(process, startTicks: ticks),
        ProcessTable.usage(process)?.group == process
      else { return nil }
      return (process, ticks)
    }
    guard !left.isEmpty else { return }
    for process in left { kill(pid_t(-process.process), SIGTERM) }
    for _ in 0..<100 {
      guard left.contains(where: { ProcessTable.isAlive($0.process, startTicks: $0.ticks) })
      else { return }
      usleep(20_000)
    }
    for process in left where ProcessTable.isAlive(process.process, startTicks: process.ticks) {
      kill(pid_t(-process.process), SIGKILL)
    }
  }
}
