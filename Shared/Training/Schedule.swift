/// Who does what in a training step, and in which order.
///
/// A *virtual stage* is a slice of layers at its place in the chain vision … projector … language;
/// `placement` says which process holds it. A process may hold several, its *chunks*, counted in
/// the chain's order. A process works down its actions strictly in order.
///
/// In every schedule each virtual stage takes forwards, backwards and weight gradients in the
/// order of the micro-batches, so that gradients add up to the same bits whatever the schedule.
///
/// A micro-batch may skip virtual stages: one without pictures skips vision and projector. What
/// is skipped stays in the list and does nothing: it waits for nobody, and nobody waits for it.
public struct Schedule: Sendable, Equatable {
  public let kind: ScheduleKind
  /// Process of each virtual stage.
  public let placement: [Int]
  public let microBatches: Int
  /// For each virtual stage the micro-batches that skip it; none at all when empty.
  public let skips: [Set<Int>]
  /// By process.
  public let actions: [[Action]]

  /// - Parameter costs: of the virtual stages, which steers the order where one is searched for
  ///   (a process with slices that are neither neighbours nor dealt round robin); by default all
  ///   cost the same, and a backward twice a forward.
  /// - Throws: ``TrainingError`` `emptyPlacement`, `negativeProcess`, `processWithoutStage`,
  ///   `noMicroBatches`, `skipOutOfRange`, `costsDoNotFit`, `invalidCost`.
  public init(
    kind: ScheduleKind, placement: [Int], microBatches: Int, skips: [Set<Int>] = [],
    costs: StageCosts? = nil
  ) throws {
    try Schedule.check(placement, microBatches, skips)
    let costs = costs ?? StageCosts(uniform: placement.count)
    try costs.check(stages: placement.count, microBatches: microBatches)
    let builder = ScheduleBuilder(
      placement: placement, microBatches: microBatches, skips: skips, costs: costs)
    self.init(
      kind: kind, placement: placement, microBatches: microBatches, skips: skips,
      actions: builder.actions(kind))
  }

  /// A schedule as given: whether it can be run is for a ``Simulation`` to find out.
  init(
    kind: ScheduleKind, placement: [Int], microBatches: Int, skips: [Set<Int>],
    actions: [[Action]]
  ) {
    self.kind = kind
    self.placement = placement
    self.microBatches = microBatches
    self.skips = skips
    self.actions = actions
  }

  public var processes: Int { actions.count }

  /// The virtual stages of a process, by chunk.
  public func stages(of process: Int) -> [Int] {
    placement.indices.filter { placement[$0] == process }
  }

  public func isSkipped(stage: Int, microBatch: Int) -> Bool {
    stage < skips.count && skips[stage].contains(microBatch)
  }

  /// The lists of skipped micro-batches when the first `stages` of `count` virtual stages do
  /// nothing for those without pictures.
  public static func skips(
    _ withoutPictures: Set<Int>, firstStages stages: Int, of count: Int
  ) -> [Set<Int>] {
    (0..<count).map { $0 < stages ? withoutPictures : [] }
  }

  private static func check(
    _ placement: [Int], _ microBatches: Int, _ skips: [Set<Int>]
  ) throws {
    guard let last = placement.max() else { throw TrainingError.emptyPlacement }
    for (stage, process) in placement.enumerated() where process < 0 {
      throw TrainingError.negativeProcess(stage: stage, process: process)
    }
    let held = Set(placement)
    // A number far out must not become that many rows.
    if let gap = (0...min(last, placement.count)).first(where: { !held.contains($0) }) {
      throw TrainingError.processWithoutStage(process: gap, processes: last + 1)
    }
    guard microBatches > 0 else { throw TrainingError.noMicroBatches(found: microBatches) }
    guard skips.isEmpty || skips.count == placement.count else {
      throw TrainingError.skipOutOfRange(
        stage: skips.count, microBatch: nil, stages: placement.count, microBatches: microBatches)
    }
    for (stage, skipped) in skips.enumerated() {
      if let wrong = skipped.sorted().first(where: { !(0..<microBatches).contains($0) }) {
        throw TrainingError.skipOutOfRange(
          stage: stage, microBatch: wrong, stages: placement.count, microBatches: microBatches)
      }
    }
  }
}

extension Schedule: CustomStringConvertible {
  /// A row for each process: `0: F0 F1 B0 F2 B1 B2`. Actions of a process with several chunks are
  /// followed by the chunk (`F0/1`) unless it is the first; what is skipped stands in brackets.
  public var description: String {
    actions.enumerated().map { process, actions in
      let stages = stages(of: process)
      let words = actions.map { action in
        isSkipped(stage: stages[action.chunk], microBatch: action.microBatch)
          ? "(\(action))" : "\(action)"
      }
      return "\(process): " + words.joined(separator: " ")
    }.joined(separator: "\n")
  }
}

extension Schedule {
  /// The share of time that processes idle, by the closed formulas of the papers: P processes of
  /// the same cost with V chunks each, M micro-batches, and a backward of any multiple of the
  /// forward (for ZB-H1: forward and both halves of the backward of one length).
  ///
  /// GPipe and 1F1B (P − 1)/(M + P − 1); interleaved (P − 1)/(V·M + P − 1), for M a multiple of P
  /// (arXiv:2104.04473); ZB-H1 (P − 1)/(3·M + P − 1), for M ≥ P, a third of the idle time of 1F1B
  /// (arXiv:2401.10241); serial 1 − 1/P.
  public static func bubble(
    _ kind: ScheduleKind, processes P: Int, microBatches M: Int, chunks V: Int = 1
  ) -> Double {
    let ramp = Double(P - 1)
    switch kind {
    case .gpipe, .oneForwardOneBackward: return ramp / (Double(M) + ramp)
    case .interleaved: return ramp / (Double(V * M) + ramp)
    case .zeroBubble: return ramp / (Double(3 * M) + ramp)
    case .serial: return ramp / Double(P)
    }
  }
}
