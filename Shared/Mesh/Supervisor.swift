import CPlatform
import Glibc

/// Runs a mesh: starts its services in the order of their dependencies, waits for their health,
/// starts those again that end, and stops all of them in reverse.
///
/// ```swift
/// let supervisor = try Supervisor(file: file, options: options)
/// try await supervisor.run { mesh in
///   // every service is healthy
/// }
/// // every service has ended
/// ```
///
/// A service that ends before it has ever been healthy fails the start: it would most likely
/// fail again, for the same reason. Later, its `restart` policy decides, with pauses that double
/// and a limit. When a service stays down that should not, the mesh is stopped, for it cannot
/// answer any more.
public actor Supervisor {
  public struct Options: Sendable {
    /// Where sockets, lock and state are kept; see ``RunDirectory/standardPath(_:)``.
    public var directory: String
    /// What services inherit, with CHIASM_RUN added.
    public var environment: [String: String]
    /// Where programs are looked for before PATH; nil: beside the running program.
    public var programDirectory: String?
    /// Restarts of a service in a row, where its policy gives no number.
    public var restartLimit = 10
    public var firstPause: Duration = .milliseconds(100)
    public var longestPause: Duration = .seconds(30)
    /// A service that was healthy for so long starts counting from zero.
    public var steadyAfter: Duration = .seconds(10)
    /// Called for each line that a service prints, in order for each service, on any thread.
    public var onLine: @Sendable (ServiceLine) -> Void = { _ in }
    public var probe: ServiceProbe

    public init(directory: String, environment: [String: String], probe: ServiceProbe) {
      self.directory = directory
      self.environment = environment
      self.probe = probe
    }
  }

  /// One stream for one reader; ends with the mesh. The oldest events are dropped when it is
  /// not read.
  public nonisolated let events: AsyncStream<MeshEvent>
  public nonisolated let directory: RunDirectory

  private let file: ComposeFile
  let options: Options
  let eventSource: AsyncStream<MeshEvent>.Continuation
  /// In start order.
  var entries: [ServiceEntry]
  private var changeSources: [AsyncStream<Void>.Continuation] = []
  private var lock: RunLock?
  var guardProcess: (id: pid_t, pipe: Int32)?
  var isStopping = false

  /// Finds programs and addresses; starts nothing.
  ///
  /// - Throws: ``MeshError``.
  public init(file: ComposeFile, options: Options) throws(MeshError) {
    self.file = file
    self.options = options
    directory = RunDirectory(path: options.directory)
    let search = ProgramSearch(
      own: options.programDirectory ?? ProgramSearch.ownDirectory(),
      path: options.environment["PATH"])
    entries = []
    for service in try file.startOrder() {
      entries.append(
        ServiceEntry(
          try PreparedService(service, file: file.path, directory: directory, search: search)))
    }
    (events, eventSource) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1024))
  }

  /// Runs the mesh for as long as `body` takes, which begins once all services are healthy.
  /// Cancel the task to stop the mesh. To be called once.
  ///
  /// - Throws: what `body` throws, or the ``MeshError`` that ended the mesh before it.
  public func run<Value: Sendable>(
    _ body: @escaping @Sendable (Supervisor) async throws -> Value
  ) async throws -> Value {
    defer { eventSource.finish() }
    try open()
    defer { close() }
    let result = await withTaskGroup(of: RunStep<Value>.self) { group in
      for index in entries.indices {
        group.addTask {
          do {
            try await self.supervise(index)
            return .serviceEnded
          } catch {
            return .serviceFailed(error)
          }
        }
      }
      group.addTask {
        do {
          try await self.waitUntilReady()
          return .finished(.success(try await body(self)))
        } catch {
          return .finished(.failure(error))
        }
      }
      var result: Result<Value, any Error>?
      for await step in group {
        let outcome: Result<Value, any Error>
        switch step {
        case .serviceEnded: continue
        case .serviceFailed(let error): outcome = .failure(error)
        case .finished(let finished): outcome = finished
        }
        guard result == nil else { continue }
        result = outcome
        group.cancelAll()
        await stopServices()
      }
      return result ?? .failure(CancellationError())
    }
    return try result.get()
  }

  /// All services as they are now, in start order; asks stages what they hold.
  public func snapshot() async -> [ServiceStatus] {
    var statuses: [ServiceStatus] = []
    for index in entries.indices { statuses.append(status(index)) }
    let describe = options.probe.describe
    return await withTaskGroup(of: (Int, StageFacts?).self) { group in
      for (index, status) in statuses.enumerated() {
        guard status.state == .healthy, let address = status.address else { continue }
        group.addTask { (index, await describe(address, .seconds(1))) }
      }
      for await (index, facts) in group { statuses[index].stage = facts }
      return statuses
    }
  }

  /// The last lines that a service printed, at most 50.
  public func lastLines(of service: String) -> [String] {
    entries.first { $0.name == service }?.lines.all ?? []
  }

  // MARK: The directory

  private func open() throws(MeshError) {
    try directory.prepare()
    lock = try RunLock.take(directory)
    do throws(MeshError) {
      // A state that cannot be read names no processes: it is replaced.
      if let old = (try? MeshState.read(directory)) ?? nil { old.endLeftovers() }
      directory.removeSockets()
      var pipe: Int32 = -1
      let id = chiasm_guard_start(3000, &pipe)
      guard id > 0 else {
        throw MeshError.system(operation: "starting the guard", reason: SystemReason.text(-id))
      }
      guardProcess = (id, pipe)
      try writeState()
    } catch {
      close()
      throw error
    }
  }

  private func close() {
    if let guardProcess {
      Glibc.close(guardProcess.pipe)
      chiasm_process_reap(guardProcess.id)
    }
    guardProcess = nil
    directory.removeSockets()
    unlink(directory.statePath)
    lock?.release()
    lock = nil
  }

  private func writeState() throws(MeshError) {
    let own = Int(getpid())
    try MeshState(
      process: own, startTicks: ProcessTable.usage(own)?.startTicks ?? 0, file: file.path,
      model: file.services.lazy.compactMap(\.model).first,
      services: entries.map { entry in
        MeshState.Service(
          name: entry.name, state: entry.state, process: entry.child.map { Int($0.pid) },
          startTicks: entry.startTicks, address: entry.prepared.address,
          restarts: entry.restarts)
      }
    ).write(directory)
  }

  // MARK: Waiting

  func changed() {
    // The state file is for others to look at: a mesh that works goes on without it.
    try? writeState()
    changeSources.removeAll { source in
      if case .terminated = source.yield() { true } else { false }
    }
  }

  /// Waits until the condition holds; false when the task was cancelled before.
  private func wait(until condition: () -> Bool) async -> Bool {
    let (changes, source) = AsyncStream.makeStream(
      of: Void.self, bufferingPolicy: .bufferingNewest(1))
    changeSources.append(source)
    defer { source.finish() }
    if condition() { return !Task.isCancelled }
    for await _ in changes where condition() { return !Task.isCancelled }
    return false
  }

  private func waitUntilReady() async throws {
    guard await wait(until: { entries.allSatisfy { $0.hasBeenHealthy } }) else {
      throw CancellationError()
    }
    eventSource.yield(.ready)
  }

  private func waitForDependencies(_ index: Int) async -> Bool {
    let dependencies = entries[index].prepared.service.dependencies
    return await wait {
      dependencies.allSatisfy { dependency in
        guard let entry = entries.first(where: { $0.name == dependency.service }) else {
          return false
        }
        return switch dependency.condition {
        case .started: entry.hasStarted
        case .healthy: entry.hasBeenHealthy
        }
      }
    }
  }

  // MARK: One service

  /// Keeps the service running; returns when it ends and may stay so.
  private func supervise(_ index: Int) async throws(MeshError) {
    guard await waitForDependencies(index) else { return }
    while !isStopping {
      let child = try launch(index)
      let complaint = await attend(index, child)
      let status = await child.exit()
      record(exit: status, of: index, child)
      if isStopping { return }
      guard let pause = try decide(index, status, complaint) else { return }
      eventSource.yield(.restarting(service: entries[index].name, after: pause))
      do {
        try await Task.sleep(for: pause)
      } catch {
        return
      }
      entries[index].restarts += 1
    }
  }

  private func launch(_ index: Int) throws(MeshError) -> ChildProcess {
    let entry = entries[index]
    let service = entry.prepared.service
    var environment = options.environment
    environment["CHIASM_RUN"] = directory.path
    for (name, value) in service.environment {
      if let value { environment[name] = value }
    }
    // A socket file left by the service's last process would make its next one fail to bind.
    if let address = entry.prepared.address, address.hasPrefix("unix:\(directory.path)/") {
      unlink(String(address.dropFirst(5)))
    }
    let command = ChildProcess.Command(
      program: entry.prepared.program, arguments: service.arguments, environment: environment,
      directory: entry.prepared.directory, usesStandardStreams: service.usesStandardStreams)
    let child: ChildProcess
    do {
      child = try ChildProcess.start(command, guardPipe: guardProcess?.pipe ?? -1) {
        [name = service.name, lines = entry.lines, onLine = options.onLine] stream, text in
        lines.append(text)
        onLine(ServiceLine(service: name, isError: stream == .error, text: text))
      }
    } catch {
      entries[index].state = .failed
      throw .cannotStart(
        service: service.name, program: entry.prepared.program, reason: "\(error)")
    }
    entries[index].child = child
    entries[index].startTicks = ProcessTable.usage(Int(child.pid))?.startTicks
    entries[index].startedAt = .now
    entries[index].healthySince = nil
    entries[index].lastUsage = nil
    entries[index].hasStarted = true
    entries[index].state = .starting
    eventSource.yield(.starting(service: service.name, process: Int(child.pid)))
    changed()
    // At once: such a service may have ended by the time anybody looks.
    if entry.prepared.check == .none { markHealthy(index) }
    return child
  }

  /// Watches a process until it has ended. Ends it itself when it does not get healthy in time
  /// or its bridge breaks, and then says why.
  private func attend(_ index: Int, _ child: ChildProcess) async -> HealthComplaint? {
    enum Outcome {
      case exited
      case complaint(HealthComplaint)
      case watchEnded
    }
    let prepared = entries[index].prepared
    let bridge = bridge(prepared, child)
    return await withTaskGroup(of: Outcome.self) { group in
      group.addTask {
        _ = await child.exit()
        return .exited
      }
      group.addTask {
        let complaint = await self.watchHealth(index, child)
        return complaint.map { .complaint($0) } ?? .watchEnded
      }
      if let bridge {
        group.addTask { await bridge.value.map { .complaint($0) } ?? .watchEnded }
      }
      var complaint: HealthComplaint?
      for await outcome in group {
        switch outcome {
        case .watchEnded: break
        case .exited:
          bridge?.cancel()
          group.cancelAll()
        case .complaint(let found):
          complaint = complaint ?? found
          child.terminate(grace: prepared.service.stopGracePeriod)
        }
      }
      return complaint
    }
  }

  /// Makes a service's standard streams reachable at its address. Not a part of the supervising
  /// task: when that is cancelled, services that stop first may still need this one.
  private nonisolated func bridge(
    _ prepared: PreparedService, _ child: ChildProcess
  ) -> Task<HealthComplaint?, Never>? {
    guard let streams = child.standardStreams, let address = prepared.address else { return nil }
    let bridge = options.probe.bridge
    return Task {
      do {
        try await bridge(address, streams.output, streams.input)
        return nil
      } catch {
        if Task.isCancelled { return nil }
        return HealthComplaint(seconds: 0, reason: "its bridge failed: \(error)")
      }
    }
  }

  /// Takes in that a process has ended, once.
  private func record(exit status: ExitStatus, of index: Int, _ child: ChildProcess) {
    guard entries[index].child?.pid == child.pid else { return }
    entries[index].child = nil
    entries[index].startTicks = nil
    entries[index].lastExit = status
    eventSource.yield(.exited(service: entries[index].name, status))
    if isStopping {
      entries[index].state = .stopped
      eventSource.yield(.stopped(service: entries[index].name))
    }
    changed()
  }

  /// How long to pause before the service is started again; nil: not at all.
  private func decide(
    _ index: Int, _ status: ExitStatus, _ complaint: HealthComplaint?
  ) throws(MeshError) -> Duration? {
    let entry = entries[index]
    let lines = entry.lines.all
    guard entry.hasBeenHealthy else {
      entries[index].state = .failed
      changed()
      if let complaint {
        throw .notHealthy(
          service: entry.name, seconds: complaint.seconds, reason: complaint.reason, lines: lines)
      }
      throw .exitedEarly(service: entry.name, status, lines: lines)
    }
    let policy = entry.prepared.service.restart
    let isFailure = !status.isSuccess || complaint != nil
    if !isFailure, policy == .no || policy.isOnFailure {
      entries[index].state = .stopped
      eventSource.yield(.stopped(service: entry.name))
      changed()
      return nil
    }
    if let since = entry.healthySince, since.duration(to: .now) >= options.steadyAfter {
      entries[index].restartsInRow = 0
    }
    let limit: Int =
      switch policy {
      case .no: 0
      case .onFailure(let limit): limit ?? options.restartLimit
      case .always, .unlessStopped: options.restartLimit
      }
    guard entries[index].restartsInRow < limit else {
      entries[index].state = .failed
      changed()
      throw .failed(
        service: entry.name, status, restarts: entries[index].restartsInRow, lines: lines)
    }
    let doublings = min(entries[index].restartsInRow, 20)
    entries[index].restartsInRow += 1
    entries[index].state = .restarting
    changed()
    return min(options.firstPause * (1 << doublings), options.longestPause)
  }

  // MARK: Stopping

  private func stopServices() async {
    isStopping = true
    for index in entries.indices.reversed() {
      guard let child = entries[index].child else {
        if entries[index].state != .failed { entries[index].state = .stopped }
        continue
      }
      entries[index].state = .stopping
      eventSource.yield(.stopping(service: entries[index].name))
      changed()
      child.terminate(grace: entries[index].prepared.service.stopGracePeriod)
      // Before the next one is asked: the task that watches this one may hear of it later.
      record(exit: await child.exit(), of: index, child)
    }
  }

  private func status(_ index: Int) -> ServiceStatus {
    let entry = entries[index]
    var status = ServiceStatus(
      name: entry.name, state: entry.state, process: entry.child.map { Int($0.pid) },
      address: entry.prepared.address, restarts: entry.restarts,
      lastExit: entry.lastExit?.description)
    guard let child = entry.child, let usage = ProcessTable.usage(Int(child.pid)) else {
      return status
    }
    let now = ContinuousClock.now
    status.residentBytes = usage.residentBytes
    status.cpuSeconds = usage.cpuSeconds
    status.uptimeSeconds = entry.startedAt.map { $0.duration(to: now) / .seconds(1) }
    if let last = entry.lastUsage {
      let elapsed = last.at.duration(to: now) / .seconds(1)
      if elapsed > 0 { status.cpuLoad = max(0, usage.cpuSeconds - last.cpuSeconds) / elapsed }
    }
    entries[index].lastUsage = (now, usage.cpuSeconds)
    return status
  }
}

/// What one of the tasks of ``Supervisor/run(_:)`` came to.
private enum RunStep<Value: Sendable>: Sendable {
  case serviceEnded
  case serviceFailed(any Error)
  case finished(Result<Value, any Error>)
}

extension ComposeFile.RestartPolicy {
  var isOnFailure: Bool {
    if case .onFailure = self { true } else { false }
  }
}
