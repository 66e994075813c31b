import Messages
import Synchronization
import Transport

/// Which steps of training a stage has open, and what may be asked of it now.
///
/// Of the order of calls nothing is assumed: what comes too early, too late or twice is refused.
final class TrainingSession: Sendable {
  enum Phase {
    /// Serves only.
    case unprepared
    case preparing
    case idle
    case running(TrainingStep)
    /// Gradients wait for their update.
    case done(TrainingStep)
    case updating
    /// An update failed half way.
    case broken(String)
  }

  fileprivate struct State {
    var phase = Phase.unprepared
    var open: [TrainingStep.Key: TrainingStep] = [:]
    var abandoned: [TrainingStep.Key] = []
  }

  private let state = Mutex(State())

  static var notPrepared: RPCError {
    RPCError(.failedPrecondition, "this stage does not train; call Trainer/Prepare first")
  }

  /// The step for one of its micro-batches to be fed; opens it at the first.
  func stepToFeed(_ key: TrainingStep.Key) throws -> TrainingStep {
    try state.withLock { state in
      try state.phase.requireReady()
      if let step = state.open[key] {
        if case .running(let other) = state.phase, other === step {
          throw RPCError(.failedPrecondition, "\(key) runs already; feed it before")
        }
        if step.failure == nil { return step }
        // A neighbour gave it up before it began here.
        state.open[key] = nil
      }
      guard state.open.count < TrainingLimits.openSteps else {
        let keys = state.open.keys.map(\.description).sorted().joined(separator: " and ")
        throw RPCError(
          .failedPrecondition, "\(keys) are open; update or abandon them before \(key) is fed")
      }
      if case .done(let step) = state.phase, step.key == key {
        throw RPCError(.failedPrecondition, "\(key) is over and waits for its update")
      }
      state.abandoned.removeAll { $0 == key }
      let step = TrainingStep(key)
      state.open[key] = step
      return step
    }
  }

  /// The step that an activation is for.
  func stepToReceive(_ key: TrainingStep.Key) throws -> TrainingStep {
    try state.withLock { state in
      if let step = state.open[key] { return step }
      guard !state.abandoned.contains(key) else {
        throw RPCError(.aborted, "\(key) was abandoned")
      }
      try state.phase.requireReady()
      throw RPCError(.failedPrecondition, "\(key) is not open in this stage; feed it first")
    }
  }

  /// The step that begins to run.
  func begin(_ key: TrainingStep.Key) throws -> TrainingStep {
    try state.withLock { state in
      try state.phase.requireReady()
      switch state.phase {
      case .idle: break
      case .running(let step):
        throw RPCError(.failedPrecondition, "\(step.key) runs; \(key) has to wait for its end")
      case .done(let step):
        throw RPCError(
          .failedPrecondition, "\(step.key) waits for its update; \(key) has to wait for that")
      default:
        throw RPCError(.failedPrecondition, "an update is under way; \(key) has to wait for it")
      }
      guard let step = state.open[key] else {
        guard !state.abandoned.contains(key) else {
          throw RPCError(.aborted, "\(key) was abandoned; feed it again to try again")
        }
        throw RPCError(.failedPrecondition, "\(key) was not fed")
      }
      state.phase = .running(step)
      return step
    }
  }

  /// A step ended well.
  ///
  /// - Throws: why it did not, when somebody abandoned it meanwhile.
  func finish(_ step: TrainingStep, hasGradients: Bool) throws {
    try state.withLock { state in
      guard case .running(let running) = state.phase, running === step, step.failure == nil else {
        throw step.failure ?? RPCError(.aborted, "\(step.key) was abandoned")
      }
      state.open[step.key] = nil
      state.phase = hasGradients ? .done(step) : .idle
    }
    step.end()
  }

  /// The steps of that number that are here in any way.
  func steps(_ number: UInt64) -> [TrainingStep] {
    state.withLock { state in
      var steps = state.open.values.filter { $0.key.step == number }
      if case .done(let step) = state.phase, step.key.step == number { steps.append(step) }
      return steps
    }
  }

  /// - Returns: whether the step has gradients that wait for an update; until ``endUpdate(_:)``
  ///   nobody else touches them.
  func beginDropping(_ step: TrainingStep) -> Bool {
    state.withLock { state in
      guard case .done(let done) = state.phase, done === step else { return false }
      state.phase = .updating
      return true
    }
  }

  /// After the end of a step that failed, with nothing left of it.
  func settle(_ step: TrainingStep) {
    state.withLock { state in
      state.abandon(step.key)
      switch state.phase {
      case .running(let other) where other === step: state.phase = .idle
      case .done(let other) where other === step: state.phase = .idle
      default: break
      }
    }
  }

  func beginUpdate(_ number: UInt64) throws {
    try state.withLock { state in
      try state.phase.requireReady()
      guard case .done(let step) = state.phase, step.key.step == number else {
        throw RPCError(
          .failedPrecondition, "step \(number) has no gradients here that wait for an update")
      }
      state.phase = .updating
    }
  }

  func endUpdate(_ failure: (any Error)?) {
    state.withLock { state in
      state.phase = failure.map { .broken("\($0)") } ?? .idle
    }
  }

  /// Waits for the end of an update, or of another Prepare, whose caller may have gone: neither
  /// can be stopped half way.
  ///
  /// - Returns: steps that are to be ended first.
  /// - Throws: `CancellationError`.
  func beginPreparing() async throws -> [TrainingStep] {
    while true {
      if let steps = beginPreparingNow() { return steps }
      try await Task.sleep(for: .milliseconds(5))
    }
  }

  private func beginPreparingNow() -> [TrainingStep]? {
    state.withLock { state in
      switch state.phase {
      case .preparing, .updating: return nil
      default: break
      }
      state.phase = .preparing
      defer { state.open = [:] }
      for key in state.open.keys { state.remember(key) }
      return Array(state.open.values)
    }
  }

  func endPreparing(isPrepared: Bool) {
    state.withLock { $0.phase = isPrepared ? .idle : .unprepared }
  }

  func requireReady() throws { try state.withLock { try $0.phase.requireReady() } }
}

extension TrainingSession.Phase {
  fileprivate func requireReady() throws {
    switch self {
    case .unprepared: throw TrainingSession.notPrepared
    case .preparing: throw RPCError(.failedPrecondition, "this stage is being prepared")
    case .broken(let reason):
      throw RPCError(
        .failedPrecondition,
        "an update failed half way (\(reason)); prepare the stage anew from a checkpoint")
    case .idle, .running, .done, .updating: break
    }
  }
}

extension TrainingSession.State {
  fileprivate mutating func abandon(_ key: TrainingStep.Key) {
    open[key] = nil
    remember(key)
  }

  fileprivate mutating func remember(_ key: TrainingStep.Key) {
    guard !abandoned.contains(key) else { return }
    abandoned.append(key)
    if abandoned.count > TrainingLimits.remembered { abandoned.removeFirst() }
  }
}
