/// Which layers go to which stage, so that the busiest stage has as little as possible.
public enum Balance {
  /// Cuts a row of layers into runs, one a stage, none empty.
  ///
  /// Exact: no cut has a smaller largest stage; among those with the smallest, the sum of squares
  /// is least, which evens out the others.
  ///
  /// - Throws: ``TrainingError/invalidSplit(part:stages:layers:)``, `invalidCost`.
  public static func split(
    costs: [Double], stages: Int, part: String = "chain"
  ) throws -> [Range<Int>] {
    guard stages > 0, stages <= costs.count else {
      throw TrainingError.invalidSplit(part: part, stages: stages, layers: costs.count)
    }
    for (layer, cost) in costs.enumerated() where !cost.isFinite || cost < 0 {
      throw TrainingError.invalidCost(stage: layer, found: cost)
    }
    let largest = best(costs, stages, limit: .infinity) { max($0, $1) }
    guard let bound = largest.value,
      let ranges = best(costs, stages, limit: bound, joining: { $0 + $1 * $1 }).ranges
    else { preconditionFailure("a row that can be cut was not") }
    return ranges
  }

  /// Of all cuts into stages of at most `limit` the one with the least `joining` of all stages.
  private static func best(
    _ costs: [Double], _ stages: Int, limit: Double, joining: (Double, Double) -> Double
  ) -> (value: Double?, ranges: [Range<Int>]?) {
    let count = costs.count
    // value[k][end]: of the first `end` layers in k stages; cut[k][end]: where the last starts.
    var value = Array(
      repeating: Array(repeating: Double?.none, count: count + 1), count: stages + 1)
    var cut = Array(repeating: Array(repeating: 0, count: count + 1), count: stages + 1)
    value[0][0] = 0
    for stage in 1...stages {
      for end in stage...count {
        // Layers are added up from the back, in one order for every caller and every limit.
        var sum = 0.0
        for start in stride(from: end - 1, through: stage - 1, by: -1) {
          sum += costs[start]
          if sum > limit { break }
          guard let before = value[stage - 1][start] else { continue }
          let joined = joining(before, sum)
          if joined < value[stage][end] ?? .infinity {
            value[stage][end] = joined
            cut[stage][end] = start
          }
        }
      }
    }
    guard let found = value[stages][count] else { return (nil, nil) }
    var ranges: [Range<Int>] = []
    var end = count
    for stage in stride(from: stages, through: 1, by: -1) {
      ranges.append(cut[stage][end]..<end)
      end = cut[stage][end]
    }
    return (found, ranges.reversed())
  }

  /// Stages of the chain vision … projector … language.
  public struct Assignment: Sendable, Equatable {
    public var vision: [Range<Int>]
    public var language: [Range<Int>]
    /// Of the stages in the chain's order, the projector's between the others.
    public var costs: [Double]

    public var largest: Double { costs.max() ?? 0 }
    /// Mean cost over the largest: the share of time in which a stage has work, were there no
    /// bubble.
    public var evenness: Double {
      largest > 0 ? costs.reduce(0, +) / (largest * Double(costs.count)) : 1
    }
  }

  /// The best stages for given numbers of them. The projector is a stage of its own.
  ///
  /// - Parameters:
  ///   - vision: cost of each vision layer; the first with the patch embedding.
  ///   - language: of each decoder layer; the first with the embedding, the last with the head.
  /// - Throws: as ``split(costs:stages:part:)``.
  public static func assign(
    vision: [Double], projector: Double, language: [Double], visionStages: Int, languageStages: Int
  ) throws -> Assignment {
    let visionRanges = try split(costs: vision, stages: visionStages, part: "vision encoder")
    let languageRanges = try split(
      costs: language, stages: languageStages, part: "language model")
    let costs =
      visionRanges.map { vision[$0].reduce(0, +) } + [projector]
      + languageRanges.map { language[$0].reduce(0, +) }
    return Assignment(vision: visionRanges, language: languageRanges, costs: costs)
  }

  /// The best numbers of stages, too, for `processes` of vision and language together: the least
  /// largest stage; of several such the one with the fewest vision stages.
  ///
  /// - Throws: as ``split(costs:stages:part:)``, when no numbers fit.
  public static func assign(
    vision: [Double], projector: Double, language: [Double], processes: Int
  ) throws -> Assignment {
    var best: Assignment?
    let fewest = max(1, processes - language.count)
    let most = min(vision.count, processes - 1)
    if fewest <= most {
      for stages in fewest...most {
        let assignment = try assign(
          vision: vision, projector: projector, language: language, visionStages: stages,
          languageStages: processes - stages)
        if assignment.largest < best?.largest ?? .infinity { best = assignment }
      }
    }
    guard let best else {
      throw TrainingError.invalidSplit(
        part: "chain", stages: processes, layers: vision.count + language.count)
    }
    return best
  }
}
