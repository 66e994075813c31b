/// Plays a ``Schedule`` through, without processes.
///
/// A process takes its actions in order, each as soon as what it needs is there: a forward the
/// output of the stage in front, a backward the gradient from the stage behind. The serial
/// schedule also lets one action of the whole mesh run at a time.
public struct Simulation: Sendable, Equatable {
  public struct Span: Sendable, Equatable {
    public var action: Action
    public var stage: Int
    public var start: Double
    public var duration: Double
    /// The micro-batch skips the stage.
    public var isSkipped: Bool

    public var end: Double { start + duration }
  }

  /// By process, in the order of its actions.
  public let timeline: [[Span]]
  /// From the start of the first action to the end of the last.
  public let makespan: Double
  /// Of each process the most pairs of chunk and micro-batch kept for their backward at once.
  public let peakSaved: [Int]

  /// The share of time in which processes do nothing, of those that have work: as
  /// ``Trace/bubble(ofStep:)`` measures it.
  public var bubble: Double {
    let working = timeline.count { $0.contains { !$0.isSkipped } }
    guard makespan > 0, working > 0 else { return 0 }
    let busy = timeline.joined().reduce(0) { $0 + $1.duration }
    return max(0, 1 - busy / (makespan * Double(working)))
  }

  /// - Throws: ``TrainingError/deadlock(stuck:)`` with the actions that wait for ever;
  ///   `costsDoNotFit`, `invalidCost`.
  public init(_ schedule: Schedule, costs: StageCosts? = nil) throws {
    let costs = costs ?? StageCosts(uniform: schedule.placement.count)
    try costs.check(stages: schedule.placement.count, microBatches: schedule.microBatches)
    try self.init(schedule, transfer: costs.transfer) { kind, stage, microBatch in
      costs.duration(kind, stage: stage, microBatch: microBatch)
    }
  }

  /// The schedule with actions that take as long as they took in a step of a trace, as if nothing
  /// had to wait for a message or for a turn on a processor. What a trace does not have takes no
  /// time.
  ///
  /// - Parameter trace: of processes as the schedule has them.
  /// - Throws: ``TrainingError/deadlock(stuck:)``.
  public init(_ schedule: Schedule, replaying trace: Trace, step: Int) throws {
    let stages = (0..<schedule.processes).map(schedule.stages)
    var durations: [Run.Key: Double] = [:]
    for span in trace.spans(ofStep: step) {
      guard stages.indices.contains(span.process),
        stages[span.process].indices.contains(span.action.chunk)
      else { continue }
      let key = Run.Key(
        kind: span.action.kind, stage: stages[span.process][span.action.chunk],
        microBatch: span.action.microBatch)
      durations[key, default: 0] += Double(span.duration)
    }
    try self.init(schedule, transfer: 0) { kind, stage, microBatch in
      durations[Run.Key(kind: kind, stage: stage, microBatch: microBatch)] ?? 0
    }
  }

  private init(
    _ schedule: Schedule, transfer: Double, duration: (Action.Kind, Int, Int) -> Double
  ) throws {
    var run = Run(schedule, transfer: transfer)
    try run.play(duration)
    timeline = run.timeline
    makespan = run.timeline.compactMap(\.last?.end).max() ?? 0
    peakSaved = (0..<schedule.processes).map { Simulation.peak(schedule, $0) }
  }

  private static func peak(_ schedule: Schedule, _ process: Int) -> Int {
    let stages = schedule.stages(of: process)
    let actions = schedule.actions[process]
    let splits = Set(
      actions.filter { $0.kind == .backwardWeight }
        .map { Action(.backwardInput, microBatch: $0.microBatch, chunk: $0.chunk) })
    var saved = 0
    var peak = 0
    for action in actions
    where !schedule.isSkipped(stage: stages[action.chunk], microBatch: action.microBatch) {
      switch action.kind {
      case .forward: saved += 1
      case .backward, .backwardWeight: saved -= 1
      // Without a second half this was all of it.
      case .backwardInput: saved -= splits.contains(action) ? 0 : 1
      }
      peak = max(peak, saved)
    }
    return peak
  }
}

extension Simulation {
  private struct Run {
    struct Key: Hashable {
      var kind: Action.Kind
      var stage: Int
      var microBatch: Int
    }

    let schedule: Schedule
    let transfer: Double
    let stages: [[Int]]
    var timeline: [[Span]]
    private var ends: [Key: Double] = [:]

    init(_ schedule: Schedule, transfer: Double) {
      self.schedule = schedule
      self.transfer = transfer
      stages = (0..<schedule.processes).map(schedule.stages)
      timeline = Array(repeating: [], count: schedule.processes)
    }

    mutating func play(_ cost: (Action.Kind, Int, Int) -> Double) throws {
      var meshFree = 0.0
      var moved = true
      while moved {
        moved = false
        for process in 0..<schedule.processes {
          while timeline[process].count < schedule.actions[process].count {
            let action = schedule.actions[process][timeline[process].count]
            guard let ready = ready(action, process) else { break }
            let stage = stages[process][action.chunk]
            let isSkipped = schedule.isSkipped(stage: stage, microBatch: action.microBatch)
            var start = max(timeline[process].last?.end ?? 0, ready)
            if schedule.kind == .serial { start = max(start, meshFree) }
            let duration = isSkipped ? 0 : cost(action.kind, stage, action.microBatch)
            let span = Span(
              action: action, stage: stage, start: start, duration: duration,
              isSkipped: isSkipped)
            timeline[process].append(span)
            ends[Key(kind: action.kind, stage: stage, microBatch: action.microBatch)] = span.end
            meshFree = max(meshFree, span.end)
            moved = true
          }
        }
      }
      let stuck = (0..<schedule.processes).compactMap { process -> String? in
        let next = timeline[process].count
        guard next < schedule.actions[process].count else { return nil }
        return "\(schedule.actions[process][next]) of process \(process)"
      }
      guard stuck.isEmpty else { throw TrainingError.deadlock(stuck: stuck) }
    }

    /// When an action's input is there; nil: not yet.
    private func ready(_ action: Action, _ process: Int) -> Double? {
      let stage = stages[process][action.chunk]
      let index = action.microBatch
      if schedule.isSkipped(stage: stage, microBatch: index) { return 0 }
      switch action.kind {
      case .forward:
        let before = (0..<stage).last { !schedule.isSkipped(stage: $0, microBatch: index) }
        guard let before else { return 0 }
        return end(.forward, before, index, for: process)
      case .backward, .backwardInput:
        guard let own = end(.forward, stage, index, for: process) else { return nil }
        let behind = (stage + 1..<schedule.placement.count).first {
          !schedule.isSkipped(stage: $0, microBatch: index)
        }
        guard let behind else { return own }
        let gradient =
          end(.backward, behind, index, for: process)
          ?? end(.backwardInput, behind, index, for: process)
        return gradient.map { max(own, $0) }
      case .backwardWeight:
        return end(.backwardInput, stage, index, for: process)
      }
    }

    private func end(
      _ kind: Action.Kind, _ stage: Int, _ microBatch: Int, for process: Int
    ) -> Double? {
      let end = ends[Key(kind: kind, stage: stage, microBatch: microBatch)]
      let isLocal = schedule.placement[stage] == process
      return end.map { isLocal ? $0 : $0 + transfer }
    }
  }
}
