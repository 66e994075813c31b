import Testing

@testable import Training

@Suite struct LearningRateTests {
  struct Known: Sendable {
    var schedule: LearningRateSchedule
    var warmup: Int
    var total: Int
    var peak: Double
    var decay = 0
    var values: [(Int, Double)]
  }

  /// From transformers 4.37.2: `get_scheduler(name, …)`, `get_last_lr()` before each step.
  static let known = [
    Known(
      schedule: .cosine, warmup: 3, total: 10, peak: 1e-5,
      values: [
        (0, 0.0), (1, 3.3333333333333333e-06), (2, 6.666666666666667e-06), (3, 1e-05),
        (4, 9.504844339512096e-06), (5, 8.117449009293668e-06), (6, 6.112604669781572e-06),
        (7, 3.887395330218429e-06), (8, 1.8825509907063328e-06), (9, 4.951556604879049e-07),
        (10, 0.0), (11, 4.951556604879043e-07),
      ]),
    Known(
      schedule: .cosine, warmup: 0, total: 7, peak: 2e-4,
      values: [
        (0, 0.0002), (1, 0.0001900968867902419), (2, 0.00016234898018587337),
        (3, 0.00012225209339563145), (4, 7.774790660436858e-05), (5, 3.7651019814126654e-05),
        (6, 9.903113209758096e-06), (7, 0.0),
      ]),
    Known(
      schedule: .cosine, warmup: 75, total: 2477, peak: 1e-5,
      values: [
        (0, 0.0), (1, 1.3333333333333336e-07), (37, 4.933333333333334e-06),
        (74, 9.866666666666668e-06), (75, 1e-05), (76, 9.999995723448701e-06),
        (1000, 6.7659671440678706e-06), (1276, 5e-06), (2476, 4.276551299753351e-12), (2477, 0.0),
      ]),
    Known(
      schedule: .linear, warmup: 3, total: 10, peak: 1e-5,
      values: [
        (0, 0.0), (2, 6.666666666666667e-06), (3, 1e-05), (4, 8.571428571428571e-06),
        (5, 7.1428571428571436e-06), (6, 5.7142857142857145e-06), (7, 4.2857142857142855e-06),
        (8, 2.8571428571428573e-06), (9, 1.4285714285714286e-06), (10, 0.0), (11, 0.0),
      ]),
    Known(
      schedule: .linear, warmup: 75, total: 2477, peak: 1e-5,
      values: [(76, 9.995836802664447e-06), (1000, 6.149042464612823e-06), (2477, 0.0)]),
    Known(
      schedule: .constant, warmup: 3, total: 10, peak: 1e-5,
      values: [(0, 0.0), (1, 3.3333333333333333e-06), (3, 1e-05), (9, 1e-05), (11, 1e-05)]),
    // From the formula of `get_wsd_schedule` (transformers 4.50), with linear warm-up and decay.
    Known(
      schedule: .warmupStableDecay, warmup: 3, total: 10, peak: 1e-5, decay: 3,
      values: [
        (0, 0.0), (1, 3.3333333333333333e-06), (2, 6.666666666666667e-06), (3, 1e-05), (4, 1e-05),
        (7, 1e-05), (8, 6.666666666666668e-06), (9, 3.333333333333334e-06), (10, 0.0), (11, 0.0),
      ]),
    Known(
      schedule: .warmupStableDecay, warmup: 75, total: 2477, peak: 1e-5, decay: 744,
      values: [
        (0, 0.0), (37, 4.933333333333334e-06), (75, 1e-05), (1000, 1e-05), (1733, 1e-05),
        (1734, 9.986559139784947e-06), (2000, 6.4112903225806455e-06),
        (2476, 1.3440860215053752e-08), (2477, 0.0),
      ]),
    Known(
      schedule: .warmupStableDecay, warmup: 0, total: 7, peak: 2e-4, decay: 7,
      values: [
        (0, 0.0002), (1, 0.00017142857142857145), (4, 8.571428571428573e-05),
        (6, 2.857142857142858e-05), (7, 0.0),
      ]),
    Known(
      schedule: .warmupStableDecay, warmup: 2, total: 6, peak: 1e-3, decay: 0,
      values: [(0, 0.0), (1, 0.0005), (2, 0.001), (5, 0.001), (6, 0.0)]),
  ]

  @Test("the rates are those of transformers, bit for bit", arguments: known)
  func values(_ known: Known) {
    let rate = LearningRate(
      known.schedule, peak: known.peak, warmupSteps: known.warmup, totalSteps: known.total,
      decaySteps: known.decay)
    for (step, value) in known.values { #expect(rate.value(at: step) == value, "step \(step)") }
  }

  @Test(
    "the warm-up takes the ratio of all steps, rounded up",
    arguments: [(0.03, 2477, 75), (0.03, 100, 3), (0.03, 101, 4), (0, 50, 0), (1, 9, 9)])
  func warmup(ratio: Double, steps: Int, expected: Int) {
    #expect(LearningRate.steps(ratio: ratio, of: steps) == expected)
    var configuration = TrainingConfiguration()
    configuration.warmupRatio = ratio
    #expect(LearningRate(configuration, totalSteps: steps).warmupSteps == expected)
  }

  @Test("warm-up steps as given come before the ratio, and 0 of them do not")
  func givenWarmup() {
    var configuration = TrainingConfiguration()
    configuration.warmupSteps = 7
    #expect(LearningRate(configuration, totalSteps: 100).warmupSteps == 7)
    configuration.warmupSteps = 0
    #expect(LearningRate(configuration, totalSteps: 100).warmupSteps == 3)
  }

  @Test("a run of no steps has a rate all the same")
  func empty() {
    let rate = LearningRate(.cosine, peak: 1, warmupSteps: 0, totalSteps: 0)
    #expect(rate.value(at: 0) == 1)
    #expect(LearningRate(.linear, peak: 1, warmupSteps: 0, totalSteps: 0).value(at: 0) == 0)
  }

  @Test(
    "the fall takes the ratio of all steps, rounded up",
    arguments: [(0.3, 2477, 744), (0.3, 10, 3), (0.3, 11, 4), (0, 50, 0), (1, 9, 9)])
  func decay(ratio: Double, steps: Int, expected: Int) {
    var configuration = TrainingConfiguration()
    configuration.decayRatio = ratio
    #expect(LearningRate(configuration, totalSteps: steps).decaySteps == expected)
  }

  @Test("a fall that would begin in the warm-up begins behind it")
  func overlap() {
    let rate = LearningRate(
      .warmupStableDecay, peak: 1, warmupSteps: 4, totalSteps: 8, decaySteps: 6)
    #expect((0...8).map { rate.value(at: $0) } == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])
  }
}

@Suite struct TrainingLengthTests {
  @Test("steps are counted as Hugging Face's Trainer counts them")
  func steps() {
    func steps(
      _ samples: Int, _ batch: Int, _ micro: Int, _ epochs: Double, _ most: Int? = nil
    ) -> Int {
      TrainingLength(
        samples: samples, globalBatchSize: batch, microBatchSize: micro, epochs: epochs,
        maxSteps: most
      ).totalSteps
    }
    // The release on 64 devices, and on 32 with two accumulation steps.
    #expect(steps(1_267_819, 512, 512, 1) == 2477)
    #expect(steps(1_267_819, 512, 256, 1) == 2476)
    #expect(steps(300, 8, 1, 1) == 37)
    #expect(steps(300, 8, 1, 2.5) == 93)
    #expect(steps(300, 8, 8, 1) == 38)
    #expect(steps(3, 8, 1, 1) == 1)
    #expect(steps(0, 8, 1, 1) == 1)
    #expect(steps(300, 8, 1, 3, 10) == 10)
    #expect(steps(300, 8, 1, 3, 0) == 111)
  }

  @Test(
    "what makes no whole step is left out of an epoch",
    arguments: [
      (300, 8, 1, 4), (300, 8, 8, 0), (300, 8, 4, 4), (297, 8, 4, 1), (3, 8, 1, 0), (16, 8, 2, 0),
      (0, 8, 1, 0), (3, .max, 1, 0),
    ])
  func leftOut(samples: Int, batch: Int, micro: Int, expected: Int) {
    let length = TrainingLength(
      samples: samples, globalBatchSize: batch, microBatchSize: micro, epochs: 1)
    #expect(length.leftOut == expected)
  }

  @Test("the epoch of a step is a fraction of an epoch's steps")
  func epochs() {
    let length = TrainingLength(samples: 40, globalBatchSize: 8, epochs: 2)
    #expect(length.stepsPerEpoch == 5)
    #expect(length.microBatchesPerStep == 8)
    #expect(length.epoch(after: 5) == 1)
    #expect(length.epoch(after: 7) == 1.4)
  }
}
