import Checkpoint
import Logging
import Messages
import Training
import TrainingData
import Transport

/// The gateway's training: one run at a time, over the stages that answer chats meanwhile.
///
/// A run begins with a call of `TrainingGateway/Train`, whose stream tells of it; when that call is
/// cancelled the run ends after the step under way, with a checkpoint. Three requests are no
/// configuration: `{"stop": true}` asks the run that is under way to end so, `{"cancel": true}` ends
/// it at once, `{"attach": true}` only listens.
actor TrainingService {
  private let modelFolder: String
  private let imageToken: Int32
  private let links: StageLinks
  private let barrier: UpdateBarrier
  private let logger: Logger
  private let endAnswers: @Sendable () async -> Void
  private var current: Current?
  private var nextListener = 0

  private struct Current {
    var output: String
    var run: TrainingRun?
    var wantsEnd = false
    /// Its steps have begun.
    var hasStarted = false
    var task: Task<Void, Never>?
    var listeners: [Int: AsyncThrowingStream<TrainingEvent, any Error>.Continuation] = [:]
  }

  init(
    modelFolder: String, imageToken: Int32, links: StageLinks, barrier: UpdateBarrier,
    logger: Logger, endAnswers: @escaping @Sendable () async -> Void
  ) {
    self.modelFolder = modelFolder
    self.imageToken = imageToken
    self.links = links
    self.barrier = barrier
    self.logger = logger
    self.endAnswers = endAnswers
  }

  nonisolated func register(in router: inout Router) {
    router.handleStream(Methods.TrainingGateway.train) { payload, _, writer in
      let (events, ownsRun) = try await self.begin(payload.message.configuration)
      do {
        for try await event in events {
          try await writer.write(Payload(TrainEvent(json: event.json)))
        }
        try Task.checkCancellation()
      } catch {
        if ownsRun { await self.endEarly() }
        throw error
      }
    }
  }

  /// Ends the run at once, as the gateway does.
  func cancel() async {
    current?.task?.cancel()
    await current?.task?.value
  }

  /// Ends the run after the step under way, with a checkpoint; at once where there is none yet, or
  /// when that takes longer than `duration`.
  func end(within duration: Duration) async {
    guard let current, let task = current.task else { return }
    guard current.hasStarted else { return task.cancel() }
    endEarly()
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await task.value }
      group.addTask {
        try? await Task.sleep(for: duration)
        if !Task.isCancelled { task.cancel() }
      }
      await group.next()
      group.cancelAll()
    }
  }

  private func endEarly() {
    current?.wantsEnd = true
    current?.run?.endEarly()
  }

  /// - Returns: the events from now on, and whether the run is the caller's.
  private func begin(
    _ json: [UInt8]
  ) throws -> (AsyncThrowingStream<TrainingEvent, any Error>, Bool) {
    switch try TrainingCommand(json: json) {
    case .stop:
      guard current != nil else { throw TrainingRunError.notRunning }
      endEarly()
      return (listen(), false)
    case .cancel:
      guard current != nil else { throw TrainingRunError.notRunning }
      let events = listen()
      current?.task?.cancel()
      return (events, false)
    case .attach:
      guard current != nil else { throw TrainingRunError.notRunning }
      return (listen(), false)
    case .train(var configuration):
      if let current { throw TrainingRunError.alreadyRunning(output: current.output) }
      if configuration.model.isEmpty { configuration.model = modelFolder }
      // Models of one architecture have one configuration: only the folder tells them apart.
      guard let own = RealPath.of(modelFolder), RealPath.of(configuration.model) == own else {
        throw TrainingRunError.unsuitableMesh(
          reason: "it holds \(modelFolder), not \(configuration.model); stop it and start it with "
            + "that model, or train with --model \(modelFolder)")
      }
      configuration.model = modelFolder
      try configuration.validate()
      current = Current(output: configuration.output)
      let events = listen()
      current?.task = Task { [configuration] in
        do {
          try await self.train(configuration)
          self.end(nil)
        } catch {
          self.end(error)
        }
      }
      return (events, true)
    }
  }

  private func train(_ configuration: TrainingConfiguration) async throws {
    let steps = try await DataSteps.checked(configuration) { await self.tell($0) }
    let run = try TrainingRun(
      configuration,
      stages: MeshStages(
        links: links, barrier: barrier, imageToken: Int(imageToken), logger: logger,
        endAnswers: endAnswers),
      source: steps, logger: logger
    ) { await self.tell($0) }
    current?.run = run
    if current?.wantsEnd == true { run.endEarly() }
    _ = try await run.run()
  }

  private func tell(_ event: TrainingEvent) {
    switch event {
    case .started: current?.hasStarted = true
    case .warning(let text): logger.warning("\(text)")
    case .lost(let step, let reason):
      logger.warning("a stage was lost", metadata: ["step": "\(step)", "reason": "\(reason)"])
    case .recovered(let step, let source):
      logger.info("training goes on", metadata: ["after step": "\(step)", "from": "\(source)"])
    default: break
    }
    guard let current else { return }
    for listener in current.listeners.values { listener.yield(event) }
  }

  private func end(_ error: (any Error)?) {
    let listeners = current?.listeners.values.map { $0 } ?? []
    current = nil
    let status = error.map { error -> any Error in
      if let error = error as? RPCError, error.code == .unavailable {
        // That would say that the gateway is gone.
        return RPCError(.aborted, error.message)
      }
      return error is any StatusConvertible || error is RPCError || error is CancellationError
        ? error : RPCError(.failedPrecondition, "\(error)")
    }
    for listener in listeners { listener.finish(throwing: status) }
  }

  private func listen() -> AsyncThrowingStream<TrainingEvent, any Error> {
    let id = nextListener
    nextListener += 1
    // A reader that does not read loses the oldest.
    let (events, listener) = AsyncThrowingStream<TrainingEvent, any Error>.makeStream(
      bufferingPolicy: .bufferingNewest(1024))
    current?.listeners[id] = listener
    listener.onTermination = { _ in Task { await self.forget(id) } }
    return events
  }

  private func forget(_ id: Int) { current?.listeners[id] = nil }
}

/// What a request for training wants.
enum TrainingCommand {
  case train(TrainingConfiguration)
  case stop
  case cancel
  case attach

  /// - Throws: ``TrainingRunError/invalidRequest(reason:)``.
  init(json: [UInt8]) throws {
    do {
      if case .object(let members) = try JSONValue.parse(json, file: "the request"),
        members.count == 1, case .boolean(true) = members[0].1
      {
        switch members[0].0 {
        case "stop":
          self = .stop
          return
        case "cancel":
          self = .cancel
          return
        case "attach":
          self = .attach
          return
        default: break
        }
      }
      self = .train(try TrainingConfiguration(json: json))
    } catch {
      throw TrainingRunError.invalidRequest(reason: "\(error)")
    }
  }
}

extension DataSteps {
  /// Looks at the data, and tells of what is left out.
  ///
  /// - Throws: as ``check(_:decodes:progress:)`` does.
  public static func checked(
    _ configuration: TrainingConfiguration, tell: TrainingRun.Events
  ) async throws -> DataSteps {
    let (steps, report) = try await check(configuration)
    let flaws = report.fatalFlaws
    if !flaws.isEmpty {
      await tell(.warning("\(samples(flaws.count, "is", "are")) left out"))
      for flaw in flaws.prefix(100) { await tell(.warning("left out: \(flaw)")) }
      if flaws.count > 100 {
        await tell(.warning("and \(flaws.count - 100) more; `chiasm data check` shows all"))
      }
    }
    let cut = report.flaws.count - flaws.count
    if cut > 0 {
      await tell(
        .notice(
          "\(samples(cut, "is", "are")) longer than \(configuration.maxSequenceLength) tokens, and "
            + "cut"))
    }
    return steps
  }

  private static func samples(_ count: Int, _ one: String, _ many: String) -> String {
    count == 1 ? "1 sample \(one)" : "\(count) samples \(many)"
  }
}

/// A gateway as somebody who trains sees it.
public struct TrainingClient: Sendable {
  private let channel: Channel

  public init(_ gateway: Endpoint) { channel = Channel(gateway) }

  /// Starts a run and tells of it until its end. Cancelled, the run ends after the step under way.
  ///
  /// - Throws: `RPCError` of the gateway.
  public func train(
    _ configuration: TrainingConfiguration, events: (TrainingEvent) async throws -> Void
  ) async throws {
    try await listen(Array(configuration.json.utf8), events)
  }

  /// Asks the run under way to end after its step, and waits until it has.
  public func stop() async throws { try await listen(Array(#"{"stop": true}"#.utf8)) { _ in } }

  /// Ends the run under way at once, and waits until it has.
  public func cancel() async throws { try await listen(Array(#"{"cancel": true}"#.utf8)) { _ in } }

  /// Listens to the run under way.
  public func attach(_ events: (TrainingEvent) async throws -> Void) async throws {
    try await listen(Array(#"{"attach": true}"#.utf8), events)
  }

  private func listen(
    _ json: [UInt8], _ events: (TrainingEvent) async throws -> Void
  ) async throws {
    for try await payload in channel.stream(
      Methods.TrainingGateway.train, TrainRequest(configuration: json))
    {
      try await events(TrainingEvent(json: payload.message.json))
    }
  }

  public func close() { channel.close() }
}
