import Testing

@testable import Training

@Suite struct StepPlanTests {
  private typealias Sample = StepPlan.Sample

  private let a = StepPlan.Sample(
    key: 11, ids: [1, 2, 3, 4], labels: [-100, -100, 3, 4], tiles: 1)
  private let b = StepPlan.Sample(key: 12, ids: [5, 6, 7], labels: [-100, 6, 7], tiles: 0)
  private let c = StepPlan.Sample(key: 13, ids: [8, 9], labels: [-100, -100], tiles: 2)

  @Test("labels move to the row that predicts them, within their sample")
  func shift() throws {
    let plan = try StepPlan([[a, b], [c]], weighting: .tokens)
    #expect(plan.microBatches[0].ids == [1, 2, 3, 4, 5, 6, 7])
    #expect(plan.microBatches[0].labels == [-100, 3, 4, -100, 6, 7, -100])
    #expect(plan.microBatches[1].labels == [-100, -100])
    #expect(plan.microBatches[0].sequences == [0..<4, 4..<7])
    #expect(plan.microBatches[0].samples.map(\.key) == [11, 12])
    #expect(plan.labelledRows == [4, 0])
    #expect(plan.tokens == 9 && plan.tiles == 3 && plan.samples == 3 && plan.labelledTokens == 4)
  }

  @Test("a label of a sample's first token is predicted by nobody")
  func firstLabel() throws {
    let sample = StepPlan.Sample(key: 0, ids: [4], labels: [4], tiles: 0)
    let plan = try StepPlan([[sample, sample]], weighting: .tokens)
    #expect(plan.microBatches[0].labels == [-100, -100])
    #expect(plan.labelledTokens == 0)
  }

  @Test("weighted by tokens, every labelled row of the step counts the same")
  func tokens() throws {
    let plan = try StepPlan([[a], [b, c], [c]], weighting: .tokens)
    #expect(plan.microBatches.map(\.lossScale) == [0.25, 0.25, 0])
    #expect(plan.loss(sums: [2, 4, 0]) == 1.5)
  }

  @Test("weighted by micro-batch, every micro-batch counts the same, one without labels 0")
  func microBatches() throws {
    let plan = try StepPlan([[a, b], [b], [c]], weighting: .microBatch)
    #expect(plan.microBatches.map(\.lossScale) == [1 / 12, 1 / 6, 0])
    #expect(plan.loss(sums: [12, 6, 0]) == 2)
  }

  @Test("a step without any label has a loss of 0, not NaN", arguments: LossWeighting.allCases)
  func noLabels(_ weighting: LossWeighting) throws {
    let plan = try StepPlan([[c], []], weighting: weighting)
    #expect(plan.microBatches.map(\.lossScale) == [0, 0])
    #expect(plan.loss(sums: [0, 0]) == 0)
    #expect(try StepPlan([], weighting: weighting).microBatches.isEmpty)
  }

  @Test("micro-batches without a tile are those that skip the vision encoder")
  func pictures() throws {
    let plan = try StepPlan([[a, b], [b], [c], [b, b]], weighting: .tokens)
    #expect(plan.withoutPictures == [1, 3])
  }

  @Test("padding fills samples with id 0 that nothing learns from")
  func padding() throws {
    let plan = try StepPlan([[b, c]], weighting: .tokens, paddedTo: 4)
    #expect(plan.microBatches[0].ids == [5, 6, 7, 0, 8, 9, 0, 0])
    #expect(plan.microBatches[0].labels == [6, 7, -100, -100, -100, -100, -100, -100])
    #expect(plan.microBatches[0].sequences == [0..<4, 4..<8])
    #expect(plan.labelledTokens == 2)
  }

  @Test("the last token of a turn, and the last before the first, predict nothing")
  func turns() throws {
    let sample = StepPlan.Sample(
      key: 5, ids: [1, 2, 3, 4, 5, 6, 7], labels: [-100, -100, 3, 4, 5, 6, 7], tiles: 1,
      turns: [2, 3])
    let plan = try StepPlan([[a, sample]], weighting: .tokens)
    #expect(
      plan.microBatches[0].labels == [-100, 3, 4, -100] + [-100, -100, 4, -100, 6, 7, -100])
    #expect(plan.microBatches[0].samples.map(\.turns) == [[], [2, 3]])
    #expect(plan.labelledTokens == 5)
    let padded = try StepPlan([[sample]], weighting: .tokens, paddedTo: 9)
    #expect(padded.microBatches[0].samples[0].turns == [2, 5])
    #expect(padded.microBatches[0].labels == [-100, -100, 4, -100, 6, 7, -100, -100, -100])
  }

  @Test(
    "a turn has a token, and something comes before the first",
    arguments: [
      ([], true), ([1], true), ([3], true), ([1, 2], true), ([4], false), ([2, 2], false),
      ([0], false), ([-1], false), ([.max, 1], false),
    ])
  func fits(turns: [Int], fits: Bool) {
    #expect(MicroBatch.Sample(key: 0, tokens: 4, tiles: 0, turns: turns).fitsTurns == fits)
  }

  @Test("a sample longer than what it is padded to is refused")
  func tooLong() {
    #expect(throws: TrainingError.sampleTooLong(key: 11, tokens: 4, limit: 3)) {
      try StepPlan([[a]], weighting: .tokens, paddedTo: 3)
    }
  }

  @Test("a label for each token is demanded")
  func labels() {
    #expect(throws: TrainingError.labelsDoNotFit(key: 1, ids: 2, labels: 1)) {
      try StepPlan([[Sample(key: 1, ids: [1, 2], labels: [1], tiles: 0)]], weighting: .tokens)
    }
  }
}
