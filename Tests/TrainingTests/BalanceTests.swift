import Testing

@testable import Training

@Suite struct BalanceTests {
  /// Largest stage of the best cut, by trying all.
  private func exhaustive(_ costs: [Double], _ stages: Int) -> Double {
    if stages == 1 { return costs.reduce(0, +) }
    return (1...costs.count - stages + 1).map { first in
      max(costs[..<first].reduce(0, +), exhaustive(Array(costs[first...]), stages - 1))
    }.min() ?? 0
  }

  @Test("no cut has a smaller largest stage", arguments: 0..<40)
  func optimal(seed: Int) throws {
    var random = SystemIndependentRandom(UInt64(seed))
    let costs = (0..<Int(random.bits() % 9) + 1).map { _ in random.unit() }
    for stages in 1...costs.count {
      let ranges = try Balance.split(costs: costs, stages: stages)
      #expect(ranges.count == stages && ranges.allSatisfy { !$0.isEmpty })
      #expect(ranges.first?.lowerBound == 0 && ranges.last?.upperBound == costs.count)
      #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
      let largest = ranges.map { costs[$0].reduce(0, +) }.max()
      #expect(largest == exhaustive(costs, stages))
    }
  }

  @Test("stages that do not matter for the largest are even, too")
  func even() throws {
    #expect(
      try Balance.split(costs: [9, 1, 1, 1, 1], stages: 3) == [0..<1, 1..<3, 3..<5])
    #expect(try Balance.split(costs: [1, 1, 1, 1], stages: 2) == [0..<2, 2..<4])
    #expect(try Balance.split(costs: [0, 0], stages: 2) == [0..<1, 1..<2])
  }

  @Test("costs with no exact sum are cut all the same")
  func rounding() throws {
    let costs = (1...60).map { 0.1 * Double($0 % 7 + 1) / 3 }
    for stages in 1...60 {
      #expect(try Balance.split(costs: costs, stages: stages).count == stages)
    }
  }

  @Test("more stages than layers, or none, are refused", arguments: [0, 4, -1])
  func refused(stages: Int) {
    let error = TrainingError.invalidSplit(part: "chain", stages: stages, layers: 3)
    #expect(throws: error) { try Balance.split(costs: [1, 1, 1], stages: stages) }
  }

  @Test("a cost that is no number is refused")
  func badCost() {
    #expect(throws: TrainingError.invalidCost(stage: 1, found: -.infinity)) {
      try Balance.split(costs: [1, -.infinity], stages: 1)
    }
  }

  @Test("a chain is cut part by part, with the projector between")
  func chain() throws {
    let assignment = try Balance.assign(
      vision: [4, 4, 4, 4], projector: 1, language: [1, 1, 1, 1, 4], visionStages: 2,
      languageStages: 2)
    #expect(assignment.vision == [0..<2, 2..<4])
    #expect(assignment.language == [0..<4, 4..<5])
    #expect(assignment.costs == [8, 8, 1, 4, 4])
    #expect(assignment.largest == 8)
    #expect(assignment.evenness == 25.0 / 40)
  }

  @Test("the number of vision stages is found when only the processes are given")
  func processes() throws {
    let vision = Array(repeating: 4.0, count: 6)
    let language = Array(repeating: 1.0, count: 12)
    let assignment = try Balance.assign(
      vision: vision, projector: 1, language: language, processes: 3)
    #expect(assignment.vision.count == 2 && assignment.language.count == 1)
    #expect(assignment.largest == 12)
    let two = try Balance.assign(vision: [1], projector: 0, language: [1], processes: 2)
    #expect(two.costs == [1, 0, 1])
    for processes in [0, 1, 19] {
      #expect(
        throws: TrainingError.invalidSplit(part: "chain", stages: processes, layers: 18)
      ) {
        try Balance.assign(
          vision: vision, projector: 1, language: language, processes: processes)
      }
    }
  }
}

@Suite struct ModelArithmeticTests {
  private let model = ModelArithmetic(ModelArithmetic.Shape())

  @Test("a ViT layer's products are twice its weights a row")
  func vision() {
    let layer = model.visionLayer(tiles: 1)
    // 122.9 million parameters a layer, 25,600 of them norms, biases and scales.
    let weights: Int = 4 * 3200 * 3200 + 2 * 3200 * 12_800
    let products = Double(2 * 1025 * weights)
    let attention: Double = 4 * 1025 * 1025 * 3200
    let patches: Double = 2 * 1024 * 588 * 3200
    #expect(layer.forward == products + attention)
    #expect(layer.backwardInput == products + 2 * attention)
    #expect(layer.backwardWeight == products)
    #expect(layer.total == 3 * (products + attention))
    #expect(model.visionLayer(tiles: 3).forward == 3 * layer.forward)
    #expect(model.visionLayer(tiles: 0) == .zero)
    #expect(model.visionLayers(tiles: 1).count == 45)
    #expect(model.visionLayers(tiles: 1)[0].forward - layer.forward == patches)
    #expect(model.patchEmbedding(tiles: 1).backwardInput == 0)
  }

  @Test("the projector's products are twice its matrices for every image row")
  func projector() {
    let weights: Int = 12_800 * 7168 + 7168 * 7168
    #expect(model.projector(tiles: 2).forward == Double(2 * 512 * weights))
  }

  @Test("attention of a decoder layer is causal and within each sample")
  func language() {
    let one = model.languageLayer(sequences: [1])
    let weights: Int = 2 * 7168 * 7168 + 2 * 7168 * 1024 + 3 * 7168 * 20_480
    let attention: Int = 4 * 7168
    #expect(one.forward == Double(2 * weights + attention))
    let both = model.languageLayer(sequences: [5, 7])
    #expect(
      both == model.languageLayer(sequences: [5]) + model.languageLayer(sequences: [7]))
    #expect(model.languageLayer(sequences: [12]).forward > both.forward)
    // Turns of 4 and 2 behind a prefix of 5: what the shorter misses of the whole, twice.
    let turns = [MicroBatch.Sample(key: 0, tokens: 11, tiles: 0, turns: [4, 2])]
    let missed: Int = 4 * 7168 * 4 * 2
    #expect(
      model.languageLayer(sequences: [11]).forward - model.languageLayer(turns).forward
        == Double(missed))
    #expect(model.languageLayers(turns)[59].forward > model.languageLayers(turns)[0].forward)
    let layers = model.languageLayers(sequences: [5, 7])
    #expect(layers.count == 60)
    let head: Double = 2 * 12 * 7168 * 64_007
    #expect(layers[59].forward - layers[0].forward == head)
  }

  @Test("frozen parts need no gradients of their weights, and none at all in front")
  func frozen() {
    let batch = [MicroBatch(samples: [.init(key: 0, tokens: 300, tiles: 1)])]
    let vision = model.visionLayers(tiles: 1).reduce(.zero, +)
    let projector = model.projector(tiles: 1)
    let language = model.languageLayers(sequences: [300]).reduce(.zero, +)
    func near(_ a: Double, _ b: Double) -> Bool { abs(a - b) <= 1e-12 * abs(b) }
    #expect(near(model.step(batch), vision.total + projector.total + language.total))
    #expect(
      near(
        model.step(batch, trained: .init(vision: false)),
        vision.forward + projector.total + language.total))
    #expect(
      near(
        model.step(batch, trained: .init(vision: false, projector: true, language: false)),
        vision.forward + projector.total + language.forward + language.backwardInput))
    let none = ModelArithmetic.Trained(vision: false, projector: false, language: false)
    #expect(
      near(
        model.step(batch, trained: none, adapters: .init(vision: false, projector: false)),
        vision.forward + projector.forward + language.forward + language.backwardInput))
    let text = [MicroBatch(samples: [.init(key: 0, tokens: 300, tiles: 0)])]
    #expect(near(model.step(text), language.total))
  }

  @Test("recomputing costs a stage another forward")
  func recompute() {
    let layer = model.languageLayer(sequences: [4])
    #expect(layer.cost(.none).backwardInput == layer.backwardInput)
    #expect(layer.cost(.full).backwardInput == layer.backwardInput + layer.forward)
    #expect(layer.cost(.full).forward == layer.forward)
  }
}
