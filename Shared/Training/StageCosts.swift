/// What the virtual stages of a schedule cost, in any unit of time.
public struct StageCosts: Sendable, Equatable {
  public struct Stage: Sendable, Equatable {
    public var forward: Double
    public var backwardInput: Double
    public var backwardWeight: Double

    public init(forward: Double, backwardInput: Double, backwardWeight: Double) {
      self.forward = forward
      self.backwardInput = backwardInput
      self.backwardWeight = backwardWeight
    }
  }

  public var stages: [Stage]
  /// `factors[stage][microBatch]` multiplies the stage's costs; 1 for all when empty.
  public var factors: [[Double]]
  /// From the end of an action to the start of one on another process that waits for it.
  public var transfer: Double

  public init(_ stages: [Stage], factors: [[Double]] = [], transfer: Double = 0) {
    self.stages = stages
    self.factors = factors
    self.transfer = transfer
  }

  /// All stages alike: a forward costs 1, and so does each half of the backward.
  public init(uniform count: Int) {
    self.init(
      Array(repeating: Stage(forward: 1, backwardInput: 1, backwardWeight: 1), count: count))
  }

  func duration(_ kind: Action.Kind, stage: Int, microBatch: Int) -> Double {
    let cost = stages[stage]
    let factor = factors.isEmpty ? 1 : factors[stage][microBatch]
    switch kind {
    case .forward: return cost.forward * factor
    case .backward: return (cost.backwardInput + cost.backwardWeight) * factor
    case .backwardInput: return cost.backwardInput * factor
    case .backwardWeight: return cost.backwardWeight * factor
    }
  }

  func check(stages count: Int, microBatches: Int) throws {
    guard stages.count == count else {
      throw TrainingError.costsDoNotFit(found: stages.count, expected: count)
    }
    guard factors.isEmpty || factors.count == count else {
      throw TrainingError.costsDoNotFit(found: factors.count, expected: count)
    }
    for row in factors where row.count != microBatches {
      throw TrainingError.costsDoNotFit(found: row.count, expected: microBatches)
    }
    for (stage, cost) in stages.enumerated() {
      let all =
        [cost.forward, cost.backwardInput, cost.backwardWeight, transfer]
        + (factors.isEmpty ? [] : factors[stage])
      if let wrong = all.first(where: { !$0.isFinite || $0 < 0 }) {
        throw TrainingError.invalidCost(stage: stage, found: wrong)
      }
    }
  }
}
