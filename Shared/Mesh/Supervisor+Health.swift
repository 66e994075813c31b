/// How a supervisor sees whether its services are well.
extension Supervisor {
  /// Checks until the process has ended. Returns a complaint when it is not healthy in time.
  func watchHealth(_ index: Int, _ child: ChildProcess) async -> HealthComplaint? {
    let prepared = entries[index].prepared
    if prepared.check == .none { return nil }
    let timing = prepared.timing
    let begin = ContinuousClock.now
    // What Docker allows: the start period, then so many failures in a row.
    let limit = timing.startPeriod + timing.interval * timing.retries
    var failures = 0
    while !Task.isCancelled {
      let reason = await check(prepared)
      guard !Task.isCancelled, entries[index].child === child else { return nil }
      if let reason {
        failures += 1
        let elapsed = begin.duration(to: .now)
        if entries[index].healthySince == nil {
          if elapsed >= limit {
            return HealthComplaint(seconds: Int(elapsed.components.seconds), reason: reason)
          }
        } else if failures == timing.retries, entries[index].state == .healthy {
          entries[index].state = .unhealthy
          eventSource.yield(.unhealthy(service: entries[index].name, reason: reason))
          changed()
        }
      } else {
        failures = 0
        markHealthy(index)
      }
      let pause =
        entries[index].healthySince == nil
        ? min(timing.startInterval, timing.interval) : timing.interval
      try? await Task.sleep(for: pause)
    }
    return nil
  }

  func markHealthy(_ index: Int) {
    guard !isStopping, entries[index].state != .healthy else { return }
    entries[index].state = .healthy
    entries[index].healthySince = entries[index].healthySince ?? .now
    entries[index].hasBeenHealthy = true
    eventSource.yield(.healthy(service: entries[index].name))
    changed()
  }

  /// nil: healthy; else why not.
  private nonisolated func check(_ prepared: PreparedService) async -> String? {
    switch prepared.check {
    case .none: return nil
    case .address(let address):
      do {
        try await options.probe.check(address, prepared.timing.timeout)
        return nil
      } catch {
        return "\(error)"
      }
    case .command(let program, let arguments):
      return await run(
        check: ChildProcess.Command(
          program: program, arguments: arguments, environment: options.environment,
          directory: prepared.directory, timeLimit: prepared.timing.timeout))
    }
  }

  private nonisolated func run(check command: ChildProcess.Command) async -> String? {
    var command = command
    command.environment["CHIASM_RUN"] = directory.path
    let lines = LineRing()
    let pipe = await guardProcess?.pipe ?? -1
    let child: ChildProcess
    do {
      child = try ChildProcess.start(command, guardPipe: pipe) { _, line in lines.append(line) }
    } catch {
      return "its healthcheck \(command.program) cannot be started: \(error)"
    }
    let status = await withTaskCancellationHandler {
      await child.exit()
    } onCancel: {
      child.terminate(grace: .zero)
    }
    if status.isSuccess { return nil }
    let said = lines.all.suffix(3).joined(separator: "; ")
    let what = "its healthcheck \(command.arguments.joined(separator: " ")) \(status)"
    return said.isEmpty ? what : "\(what): \(said)"
  }
}
