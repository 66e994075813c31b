import Checkpoint
import Support
import Tensors
import Testing
import Training
import TrainingData

@testable import InternVL
@testable import Sequencer

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What a gateway makes of a step's samples.
@Suite struct ObjectivePlanTests {
  // MARK: Places and targets

  @Test(arguments: [ModelConfiguration.PixelShuffle.v1, .v2])
  func `A cell's image token is the one that pixel shuffle makes of its patches`(
    _ order: ModelConfiguration.PixelShuffle
  ) {
    let side = 4
    let merge = PatchMerge(grid: 2 * side, factor: 2, channels: 1, order: order)
    let cells = (0..<4 * side * side).map { patch in
      let (row, column) = patch.quotientAndRemainder(dividingBy: 2 * side)
      return Float(row / 2 * side + column / 2)
    }
    let merged = Tensor(zeros: .float32, [side * side, 4])
    merge.apply(Tensor(cells, [cells.count, 1]), into: merged)
    let places = RunObjectives.places(count: side * side, order)
    for (cell, token) in places.enumerated() {
      #expect(merged[token].floats == [Float](repeating: Float(cell), count: 4))
    }
  }

  private struct Golden: Decodable {
    struct Naming: Decodable {
      struct Values: Decodable { let values: [Double] }
      let words_of: [PictureClasses.Forms]
      let cells: [[Int32]]
      let targets: Values
    }
    let naming: Naming
  }

  private func objectives(
    _ groups: [RunObjectives.Group], places: Int = 4,
    _ change: (inout TrainingConfiguration) -> Void = { _ in }
  ) -> RunObjectives {
    var configuration = TrainingConfiguration()
    configuration.patchClassLossWeight = 0.5
    configuration.namingLossWeight = 1
    configuration.namingLossWeightEnd = 0.5
    change(&configuration)
    return RunObjectives(
      configuration, groups: groups, places: RunObjectives.places(count: places, .v1))
  }

  @Test func `Targets are the reference's`() throws {
    let golden = try JSONDecoder().decode(
      Golden.self,
      from: Data(contentsOf: URL(fileURLWithPath: Fixtures.path("objectives/golden.json")))
    ).naming
    let parts = objectives([
      .init(
        name: "what", weight: 1, classWeights: golden.words_of.map { _ in 1 },
        forms: golden.words_of)
    ])
    let vocabulary = golden.targets.values.count / golden.cells.count
    for (index, cell) in golden.cells.enumerated() {
      var dense = [Double](repeating: 0, count: vocabulary)
      for (token, share) in parts.target(cell.map { (group: 0, number: $0) }) {
        dense[Int(token)] += share
      }
      let expected = golden.targets.values[index * vocabulary..<(index + 1) * vocabulary]
      for (a, b) in zip(dense, expected) { #expect(abs(a - b) < 1e-12) }
    }
  }

  // MARK: A step

  private static let groups = [
    RunObjectives.Group(
      name: "what", weight: 1, classWeights: [0.3, 1, 2.5], forms: [[], [[5], [6, 7]], [[8]]]),
    RunObjectives.Group(
      name: "colour", weight: 0.5, classWeights: [1, 1], forms: [[[9]], [[10]]]),
  ]

  /// Tiles of 4 patches and, to have more to tell apart, 4 cells.
  private func sample(
    _ key: UInt64, tiles: Int, what: [Int32]? = nil, colour: [Int32]? = nil,
    cells: [[Int32]] = []
  ) -> TrainingSample {
    var sample = TrainingSample(
      key: key, ids: [1, 2, 3], labels: [-100, 2, 3], tiles: tiles,
      source: .init(dataset: "d", file: "f", line: 1))
    if what != nil || colour != nil || !cells.isEmpty {
      sample.classes = SampleClasses(patches: [what ?? [], colour ?? []], cells: [cells, []])
    }
    return sample
  }

  private func plan(
    _ samples: [[TrainingSample]], _ parts: RunObjectives, after done: Int = 0, of steps: Int = 3
  ) throws -> (StepPlan, ObjectivePlan) {
    var plan = try StepPlan(
      samples.map { group in
        group.map { .init(key: $0.key, ids: $0.ids, labels: $0.labels, tiles: $0.tiles) }
      }, weighting: .tokens)
    let objectives = ObjectivePlan(parts, samples, after: done, of: steps, into: &plan)
    return (plan, objectives)
  }

  private var samples: [TrainingSample] {
    [
      sample(1, tiles: 1, what: [0, 1, -1, 2], cells: [[], [1], [2, 1], [0]]),
      sample(2, tiles: 0),
      sample(3, tiles: 1),
      sample(
        4, tiles: 2, what: [0, 0, 0, 0, 1, 1, -1, -1], colour: [Int32](repeating: 1, count: 8)),
    ]
  }

  @Test func `What a patch and a row count does not depend on how micro-batches are cut`() throws {
    let parts = objectives(Self.groups)
    let total = 0.3 + 1 + 2.5 + 4 * 0.3 + 2.0
    for cut in [[samples], samples.map { [$0] }, [Array(samples[..<3]), [samples[3]]]] {
      let (plan, _) = try plan(cut, parts)
      let patches = plan.microBatches.flatMap(\.patchTargets)
      for target in patches {
        let expected = target.group == 0 ? 0.5 / total : 0.5 * 0.5 / 8
        #expect(abs(target.scale - expected) < 1e-15)
      }
      let all = patches.filter { $0.group == 0 }.flatMap(\.classes).filter { $0 >= 0 }
      #expect(all == [0, 1, 2, 0, 0, 0, 0, 1, 1])
      let naming = plan.microBatches.compactMap(\.namingTargets)
      #expect(naming.count == 1 && naming[0].scale == 0.5)
      for (microBatch, group) in zip(plan.microBatches, cut) {
        let tiles = group.reduce(0) { $0 + $1.tiles }
        for target in microBatch.patchTargets { #expect(target.classes.count == 4 * tiles) }
      }
    }
  }

  @Test func `Rows with a target are named in the order of the tokens`() throws {
    let parts = objectives(Self.groups)
    let (plan, _) = try plan([[sample(7, tiles: 1), samples[0]]], parts)
    let naming = try #require(plan.microBatches[0].namingTargets)
    // Behind the four rows of the first picture: cell 1 is token 2, cell 2 is token 1.
    #expect(naming.rows == [4 + 1, 4 + 2])
    #expect(naming.counts == [4, 3])
    #expect(naming.tokens == [8, 5, 6, 7, 5, 6, 7])
    #expect(naming.shares == [0.5, 0.25, 0.125, 0.125, 0.5, 0.25, 0.25])
  }

  @Test func `The loss is the parts by their weights`() throws {
    let parts = objectives(Self.groups) { $0.answerLossWeight = 2 }
    let (plan, objectives) = try plan([[samples[0]], [samples[3]]], parts, after: 2)
    let total = 0.3 + 1 + 2.5 + 4 * 0.3 + 2.0
    let answers = plan.loss(sums: [3, 5])
    #expect(answers == 2)
    #expect(plan.microBatches[0].lossScale == 0.5)
    let found = [
      ObjectiveLoss(microBatch: 1, group: 0, sum: 2, rows: 2, right: 1),
      ObjectiveLoss(microBatch: 0, group: nil, sum: 3, rows: 2, right: 0),
      ObjectiveLoss(microBatch: 0, group: 0, sum: 1, rows: 2, right: 2),
      ObjectiveLoss(microBatch: 1, group: 1, sum: 4, rows: 8, right: 8),
    ]
    let losses = objectives.losses(answers: answers, found)
    #expect(losses.answers == 2)
    let patches = 3 / total + 0.5 * 4 / 8
    #expect(abs((losses.patchClasses ?? 0) - patches) < 1e-12)
    #expect(losses.patchAccuracy == 0.75)
    #expect(losses.naming == 1.5)
    #expect(abs(losses.total - (2 * 2 + 0.5 * patches + 0.5 * 1.5)) < 1e-12)
    #expect(objectives.losses(answers: answers, found.reversed()) == losses)
  }

  @Test func `A step without labels adds nothing`() throws {
    let (plan, objectives) = try plan([[samples[1], samples[2]]], objectives(Self.groups))
    #expect(plan.microBatches[0].patchTargets.isEmpty)
    #expect(plan.microBatches[0].namingTargets == nil)
    let losses = objectives.losses(answers: 2, [])
    #expect(losses.total == 2 && losses.patchClasses == 0 && losses.naming == 0)
    #expect(losses.patchAccuracy == nil)
  }

  @Test func `Without answers nothing is left of the texts but their lengths`() throws {
    let parts = objectives(Self.groups) {
      $0.answerLossWeight = 0
      $0.namingLossWeight = 0
      $0.namingLossWeightEnd = nil
    }
    let (plan, objectives) = try plan([[samples[0]]], parts)
    #expect(plan.microBatches[0].ids.isEmpty && plan.microBatches[0].labels.isEmpty)
    #expect(plan.microBatches[0].lossScale == 0 && plan.labelledTokens == 0)
    #expect(plan.microBatches[0].rows == 3)
    #expect(plan.microBatches[0].namingTargets == nil)
    #expect(objectives.losses(answers: 0, []).answers == nil)
    #expect(
      parts.training
        == TrainingObjectives(
          answers: false, naming: false,
          groups: Self.groups.map { .init(name: $0.name, classWeights: $0.classWeights) }))
  }

  // MARK: Who does what

  @Test func `Slices behind the last part of the loss have no actions`() throws {
    let placement = StagePlacement(
      vision: [.init(name: "a"), .init(name: "b")], projector: .init(name: "c"),
      language: [.init(name: "d", chunks: 2), .init(name: "e", chunks: 2)])
    var work = StepWork(
      step: 1,
      microBatches: [
        MicroBatch(samples: [.init(key: 1, tokens: 4, tiles: 1)]),
        MicroBatch(samples: [.init(key: 2, tokens: 4, tiles: 0)]),
      ], schedule: .oneForwardOneBackward
    ) { _ in Tensor(zeros: .float32, [1]) }
    #expect(try placement.schedule(work).processes == 5)
    work.objectives = TrainingObjectives(answers: false, naming: true)
    let naming = try placement.schedule(work)
    #expect(naming.processes == 4)
    #expect(naming.actions[3].allSatisfy { $0.chunk == 0 })
    #expect(naming.isSkipped(stage: 3, microBatch: 1))
    work.objectives = TrainingObjectives(
      answers: false, groups: [.init(name: "what", classWeights: [1])])
    let vision = try placement.schedule(work)
    #expect(vision.processes == 2)
    #expect("\(vision)" == "0: F0 (F1) B0 (B1)\n1: F0 B0 (F1) (B1)")
  }
}
