#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A token and how probable the model finds it.
public struct TokenLogprob: Sendable, Equatable {
  public var token: UInt32
  public var logprob: Float

  public init(token: UInt32, logprob: Float) {
    self.token = token
    self.logprob = logprob
  }
}

public struct SampledToken: Sendable, Equatable {
  public var token: UInt32
  /// Natural logarithm; nil unless ``SamplingParameters/topLogprobs`` asked for it.
  public var logprob: Float?
  /// Best first; of equal ones the lower token first.
  public var top: [TokenLogprob]

  public init(token: UInt32, logprob: Float? = nil, top: [TokenLogprob] = []) {
    self.token = token
    self.logprob = logprob
    self.top = top
  }
}

/// Chooses the next token, in the order of Hugging Face's `generate`: repetition penalty,
/// temperature, top-k, top-p, min-p.
///
/// Where tokens tie, the one of lower index ranks first; top-k keeps all that tie with its last,
/// as `generate` does. Log-probabilities are those of the model's own distribution, before penalty
/// and temperature, as vLLM's default is.
public enum Sampler {
  /// Depends on its arguments only: the same seed, step and logits give the same token, whatever
  /// else runs.
  ///
  /// - Parameters:
  ///   - logits: [V].
  ///   - generated: ids of the answer so far; ids beyond V are ignored.
  ///   - step: index of the token to come in the answer.
  /// - Throws: ``SamplingError``.
  public static func sample(
    _ logits: UnsafeBufferPointer<Float>, parameters: SamplingParameters,
    generated: some Sequence<UInt32>, step: Int
  ) throws -> SampledToken {
    try parameters.validate()
    try check(logits)
    let token: Int
    if parameters.repetitionPenalty == 1 {
      token = choose(logits, parameters, step)
    } else {
      var penalized = Array(logits)
      penalize(&penalized, generated, by: parameters.repetitionPenalty)
      token = penalized.withUnsafeBufferPointer { choose($0, parameters, step) }
    }
    guard let count = parameters.topLogprobs else {
      return SampledToken(token: UInt32(token))
    }
    let normalizer = logSumExp(logits)
    func logprob(_ index: Int) -> Float { Float(Double(logits[index]) - normalizer) }
    return SampledToken(
      token: UInt32(token), logprob: logprob(token),
      top: RankedLogits(values: logits).best(count).map {
        TokenLogprob(token: UInt32($0), logprob: logprob($0))
      })
  }

  /// The token of the largest logit, the first of several.
  ///
  /// - Throws: ``SamplingError``.
  public static func greedy(_ logits: UnsafeBufferPointer<Float>) throws -> UInt32 {
    try check(logits)
    return UInt32(indexOfLargest(logits))
  }

  private static func check(_ logits: UnsafeBufferPointer<Float>) throws {
    guard !logits.isEmpty else { throw SamplingError.emptyLogits }
    // Sixteen at a time, for the usual case that all are well.
    let whole = logits.count / 16 * 16
    var finite = SIMD16<Float>(repeating: -.infinity)
    var areNumbers = SIMDMask<SIMD16<Int32>>(repeating: true)
    for start in stride(from: 0, to: whole, by: 16) {
      let values = sixteen(logits, start)
      areNumbers .&= values .< .infinity
      finite.replace(with: values, where: values .> finite)
    }
    var isPossible = finite.max() > -.infinity
    let isSuspect = !all(areNumbers)
    for index in (isSuspect ? 0 : whole)..<logits.count {
      let value = logits[index]
      guard value < .infinity else {
        throw SamplingError.invalidLogit(token: index, value: "\(value)")
      }
      if value > -.infinity { isPossible = true }
    }
    guard isPossible else { throw SamplingError.nothingPossible }
  }

  private static func sixteen(
    _ logits: UnsafeBufferPointer<Float>, _ start: Int
  ) -> SIMD16<Float> {
    UnsafeRawBufferPointer(logits).loadUnaligned(
      fromByteOffset: start * MemoryLayout<Float>.stride, as: SIMD16<Float>.self)
  }

  /// arXiv:1909.05858, equation 2.
  private static func penalize(
    _ logits: inout [Float], _ generated: some Sequence<UInt32>, by penalty: Float
  ) {
    for token in Set(generated) where token < logits.count {
      let value = logits[Int(token)]
      guard value.isFinite else { continue }
      let changed = value < 0 ? value * penalty : value / penalty
      // An extreme penalty must not make a logit infinite.
      let limit = Float.greatestFiniteMagnitude
      logits[Int(token)] = min(max(changed, -limit), limit)
    }
  }

  private static func choose(
    _ logits: UnsafeBufferPointer<Float>, _ parameters: SamplingParameters, _ step: Int
  ) -> Int {
    let best = indexOfLargest(logits)
    guard parameters.temperature > 0 else { return best }
    let distribution = TemperedLogits(
      ranked: RankedLogits(values: logits), largest: logits[best],
      temperature: parameters.temperature)
    var cut = RankedLogits.Cut.everything
    if parameters.topK > 0 && parameters.topK < logits.count {
      cut.value = distribution.ranked.value(ofRank: parameters.topK)
    }
    if parameters.topP < 1 { cut = distribution.nucleus(Double(parameters.topP), within: cut) }
    return distribution.draw(
      Philox.uniform(seed: parameters.seed, step: UInt64(truncatingIfNeeded: step)), within: cut,
      minimum: Double(parameters.minP)) ?? best
  }

  private static func indexOfLargest(_ logits: UnsafeBufferPointer<Float>) -> Int {
    let whole = logits.count / 16 * 16
    guard whole > 0 else {
      return logits.indices.reduce(0) { logits[$1] > logits[$0] ? $1 : $0 }
    }
    // The greatest first, then where it comes first.
    var greatest = sixteen(logits, 0)
    for start in stride(from: 16, to: whole, by: 16) {
      let values = sixteen(logits, start)
      greatest.replace(with: values, where: values .> greatest)
    }
    var largest = greatest.max()
    for index in whole..<logits.count where logits[index] > largest { largest = logits[index] }
    for start in stride(from: 0, to: whole, by: 16)
    where any(sixteen(logits, start) .== largest) {
      return (start..<start + 16).first { logits[$0] == largest } ?? start
    }
    return (whole..<logits.count).first { logits[$0] == largest } ?? 0
  }

  private static func logSumExp(_ logits: UnsafeBufferPointer<Float>) -> Double {
    let largest = Double(logits[indexOfLargest(logits)])
    var sum = 0.0
    for logit in logits { sum += exp(Double(logit) - largest) }
    return largest + log(sum)
  }
}
