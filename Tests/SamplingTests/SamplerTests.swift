import Testing

@testable import Sampling

@Suite struct SamplerTests {
  func sample(
    _ logits: [Float], _ parameters: SamplingParameters, generated: [UInt32] = [], step: Int = 0
  ) throws -> SampledToken {
    try logits.withUnsafeBufferPointer {
      try Sampler.sample($0, parameters: parameters, generated: generated, step: step)
    }
  }

  /// How often each token comes in `count` steps.
  func frequencies(
    _ logits: [Float], _ parameters: SamplingParameters, generated: [UInt32] = [],
    count: Int = 6_000
  ) throws -> [Double] {
    var counts = [Double](repeating: 0, count: logits.count)
    for step in 0..<count {
      counts[Int(try sample(logits, parameters, generated: generated, step: step).token)] += 1
    }
    return counts.map { $0 / Double(count) }
  }

  static let logits: [Float] = [1.5, -0.5, 2.25, 0, 2.25, -3, 0.75, 1.5]

  static let settings: [(SamplingParameters, [UInt32])] = [
    (SamplingParameters(temperature: 1, seed: 1), []),
    (SamplingParameters(temperature: 0.5, seed: 2), []),
    (SamplingParameters(temperature: 3, seed: 3), []),
    (SamplingParameters(temperature: 1, topK: 1, seed: 4), []),
    (SamplingParameters(temperature: 1, topK: 3, seed: 5), []),
    (SamplingParameters(temperature: 1, topK: 7, seed: 6), []),
    (SamplingParameters(temperature: 1, topK: 100, seed: 7), []),
    (SamplingParameters(temperature: 1, topP: 0.01, seed: 8), []),
    (SamplingParameters(temperature: 1, topP: 0.5, seed: 9), []),
    (SamplingParameters(temperature: 1, topP: 0.9, seed: 10), []),
    (SamplingParameters(temperature: 0.7, topK: 5, topP: 0.8, seed: 11), []),
    (SamplingParameters(temperature: 1, minP: 0.3, seed: 12), []),
    (SamplingParameters(temperature: 2, minP: 1, seed: 13), []),
    (SamplingParameters(temperature: 1, topK: 6, topP: 0.95, minP: 0.1, seed: 14), []),
    (SamplingParameters(temperature: 1, repetitionPenalty: 1.5, seed: 15), [2, 5, 2, 99]),
    (SamplingParameters(temperature: 1, topP: 0.9, repetitionPenalty: 0.5, seed: 16), [1, 0]),
  ]

  @Test("draws from the reference's distribution", arguments: settings.indices)
  func distribution(_ setting: Int) throws {
    let (parameters, generated) = Self.settings[setting]
    let expected = Reference.probabilities(Self.logits, parameters, generated)
    let found = try frequencies(Self.logits, parameters, generated: generated)
    for (token, (expected, found)) in zip(expected, found).enumerated() {
      // Five standard deviations of a frequency over 6,000 draws.
      let tolerance = 5 * (expected * (1 - expected) / 6_000).squareRoot()
      #expect(abs(expected - found) <= tolerance, "token \(token): \(found), not \(expected)")
    }
  }

  @Test("keeps the reference's tokens in large vocabularies", arguments: 0..<12)
  func support(_ seed: Int) throws {
    var state = UInt32(seed)
    let logits = (0..<3_000).map { _ in
      state = state &* 1_664_525 &+ 1_013_904_223
      // Coarse, so that many tie.
      return Float(state >> 22) / 64
    }
    let parameters = SamplingParameters(
      temperature: [0.5, 1, 4][seed % 3], topK: [0, 40, 700, 0][seed % 4],
      topP: [1, 0.9, 0.3][seed % 3], minP: [0, 0.2][seed % 2])
    let expected = Reference.probabilities(logits, parameters, [])
    var cut = RankedLogits.Cut.everything
    logits.withUnsafeBufferPointer { buffer in
      let ranked = RankedLogits(values: buffer)
      if parameters.topK > 0 { cut.value = ranked.value(ofRank: parameters.topK) }
      let tempered = TemperedLogits(
        ranked: ranked, largest: logits.max() ?? 0, temperature: parameters.temperature)
      if parameters.topP < 1 { cut = tempered.nucleus(Double(parameters.topP), within: cut) }
      for index in logits.indices where parameters.minP == 0 {
        #expect(cut.keeps(logits[index], index) == (expected[index] > 0), "token \(index)")
      }
      for point in stride(from: 0.0, to: 1, by: 0.01) {
        let token = tempered.draw(point, within: cut, minimum: Double(parameters.minP))
        #expect(token.map { expected[$0] > 0 } == true)
      }
    }
  }

  @Test func greedyTakesTheFirstOfTheBest() throws {
    #expect(try sample(Self.logits, SamplingParameters()).token == 2)
    #expect(try sample([0, 0, 0], SamplingParameters()).token == 0)
    #expect(try sample([-0.0, 0], SamplingParameters()).token == 0)
    #expect(try sample([-.infinity, -1e30], SamplingParameters()).token == 1)
    #expect(try Self.logits.withUnsafeBufferPointer(Sampler.greedy) == 2)
  }

  @Test(arguments: [1, 15, 16, 17, 32, 45])
  func greedyFindsTheBestWhereverItLies(count: Int) throws {
    for place in 0..<count {
      var logits = (0..<count).map { $0 % 3 == 0 ? -Float.infinity : -Float($0) }
      logits[place] = 2
      logits[count - 1] = 2
      #expect(try sample(logits, SamplingParameters()).token == UInt32(place))
      for invalid in [Float.nan, .infinity] {
        logits[place] = invalid
        #expect(throws: SamplingError.invalidLogit(token: place, value: "\(invalid)")) {
          try sample(logits, SamplingParameters())
        }
      }
    }
  }

  @Test func greedyHonoursTheRepetitionPenalty() throws {
    let parameters = SamplingParameters(repetitionPenalty: 2)
    #expect(try sample([4, 3, -1], parameters, generated: [0]).token == 1)
    #expect(try sample([-4, -3, -5], parameters, generated: [1, 1]).token == 0)
    #expect(try sample([4, 3], parameters, generated: [7]).token == 0)
  }

  @Test func topKKeepsWhatTiesWithItsLast() throws {
    let found = try frequencies([1, 3, 2, 2, 2], SamplingParameters(temperature: 1, topK: 2))
    #expect(found.map { $0 > 0 } == [false, true, true, true, true])
  }

  @Test func topPTakesTheFirstOfEqualTokens() throws {
    let found = try frequencies([0, 0, 0, 0], SamplingParameters(temperature: 1, topP: 0.5))
    #expect(found.map { $0 > 0 } == [true, true, false, false])
  }

  @Test("survives extremes", arguments: [1e-30, 1e-3, 1, 1e30] as [Float])
  func extremes(temperature: Float) throws {
    let parameters = SamplingParameters(temperature: temperature, topP: 0.999, seed: 5)
    let largest = Float.greatestFiniteMagnitude
    for step in 0..<50 {
      #expect(try sample([7], parameters, step: step).token == 0)
      #expect(try sample([-.infinity, 3, -.infinity], parameters, step: step).token == 1)
      #expect(try sample([-largest, largest], parameters, step: step).token <= 1)
      #expect(try sample([5, 5, 5], parameters, step: step).token < 3)
    }
    if temperature < 1 {
      #expect(try (0..<50).allSatisfy { try sample([1, 1.5, 0], parameters, step: $0).token == 1 })
    }
  }

  @Test func extremePenaltiesKeepLogitsFinite() throws {
    for penalty in [Float.leastNonzeroMagnitude, .greatestFiniteMagnitude] {
      let parameters = SamplingParameters(temperature: 1, repetitionPenalty: penalty)
      #expect(try sample([-5, -5, 5], parameters, generated: [0, 1, 2]).token < 3)
    }
  }

  @Test func drawsDependOnSeedStepAndLogitsOnly() throws {
    let parameters = SamplingParameters(temperature: 1, seed: 42)
    let first = try (0..<200).map { try sample(Self.logits, parameters, step: $0).token }
    let again = try (0..<200).reversed().map {
      try sample(Self.logits, parameters, step: $0).token
    }
    #expect(first == again.reversed())
    var other = parameters
    other.seed = 43
    #expect(try (0..<200).map { try sample(Self.logits, other, step: $0).token } != first)
    #expect(Set(first).count > 3)
  }

  @Test func logprobsAreTheModelsOwn() throws {
    let parameters = SamplingParameters(
      temperature: 0.1, topK: 1, repetitionPenalty: 3, topLogprobs: 3)
    let sampled = try sample(Self.logits, parameters, generated: [2])
    let expected = Reference.probabilities(Self.logits, SamplingParameters(temperature: 1), [])
    #expect(sampled.token == 4)
    #expect(abs(Double(sampled.logprob ?? 0) - Reference.log(expected[4])) < 1e-6)
    #expect(sampled.top.map(\.token) == [2, 4, 0])
    for entry in sampled.top {
      #expect(abs(Double(entry.logprob) - Reference.log(expected[Int(entry.token)])) < 1e-6)
    }
    #expect(try sample(Self.logits, SamplingParameters()).logprob == nil)
    let none = try sample(Self.logits, SamplingParameters(topLogprobs: 0))
    #expect(none.top.isEmpty && none.logprob != nil)
    #expect(try sample([1, 2], SamplingParameters(topLogprobs: 9)).top.count == 2)
    let impossible = try sample([0, -.infinity], SamplingParameters(topLogprobs: 2))
    #expect(impossible.top.map(\.logprob) == [0, -.infinity])
  }

  @Test func refusesLogitsThatAreNoDistribution() {
    #expect(throws: SamplingError.emptyLogits) { try sample([], SamplingParameters()) }
    #expect(throws: SamplingError.invalidLogit(token: 1, value: "nan")) {
      try sample([0, .nan], SamplingParameters())
    }
    #expect(throws: SamplingError.invalidLogit(token: 0, value: "inf")) {
      try sample([.infinity, 1], SamplingParameters(temperature: 1))
    }
    #expect(throws: SamplingError.nothingPossible) {
      try sample([-.infinity, -.infinity], SamplingParameters())
    }
  }

  static let invalid: [(SamplingParameters, String)] = [
    (SamplingParameters(temperature: -1), "temperature"),
    (SamplingParameters(temperature: .nan), "temperature"),
    (SamplingParameters(temperature: .infinity), "temperature"),
    (SamplingParameters(topK: -1), "top_k"),
    (SamplingParameters(topP: 0), "top_p"),
    (SamplingParameters(topP: 1.5), "top_p"),
    (SamplingParameters(topP: .nan), "top_p"),
    (SamplingParameters(minP: -0.1), "min_p"),
    (SamplingParameters(minP: 1.1), "min_p"),
    (SamplingParameters(repetitionPenalty: 0), "repetition_penalty"),
    (SamplingParameters(repetitionPenalty: .infinity), "repetition_penalty"),
    (SamplingParameters(topLogprobs: -1), "top_logprobs"),
    (SamplingParameters(topLogprobs: 101), "top_logprobs"),
  ]

  @Test("refuses parameters out of range", arguments: invalid.indices)
  func validates(_ index: Int) {
    let (parameters, name) = Self.invalid[index]
    #expect {
      try parameters.validate()
    } throws: { error in
      guard case SamplingError.invalidParameter(name, _, _) = error else { return false }
      return "\(error)".hasPrefix(name)
    }
  }
}

@Suite struct RankedLogitsTests {
  @Test func findsEveryRank() {
    let values: [Float] = [
      0, -0.0, 1, -1, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, -.infinity, 1,
      .leastNonzeroMagnitude, -.leastNonzeroMagnitude, 3.5, -3.5, 1e-20, 1e20,
    ]
    let sorted = values.sorted(by: >)
    values.withUnsafeBufferPointer { buffer in
      let ranked = RankedLogits(values: buffer)
      for count in 1...values.count {
        #expect(ranked.value(ofRank: count) == sorted[count - 1], "rank \(count)")
        #expect(ranked.best(count).map { values[$0] } == Array(sorted.prefix(count)))
      }
      #expect(ranked.best(0).isEmpty)
      #expect(ranked.best(99).count == values.count)
    }
  }
}

@Suite struct PhiloxTests {
  /// The known answers of Random123, the authors' own implementation.
  @Test func givesTheKnownAnswers() {
    #expect(
      Philox.block(counter: .zero, key: .zero)
        == SIMD4(0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8))
    #expect(
      Philox.block(
        counter: SIMD4(0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344),
        key: SIMD2(0xA409_3822, 0x299F_31D0))
        == SIMD4(0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1))
  }

  @Test func staysInTheUnitInterval() {
    let values = (0..<10_000).map { Philox.uniform(seed: .max, step: UInt64($0)) }
    #expect(values.allSatisfy { $0 >= 0 && $0 < 1 })
    #expect(abs(values.reduce(0, +) / 10_000 - 0.5) < 0.02)
  }
}
