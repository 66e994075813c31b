/// How the next token is chosen from the logits.
public struct SamplingParameters: Sendable, Equatable {
  /// Divides the logits; 0 takes the best token always.
  public var temperature: Float
  /// Keeps this many best tokens, and those that tie with the last of them; 0 keeps all.
  public var topK: Int
  /// Keeps the fewest best tokens whose probabilities reach this sum; 1 keeps all.
  public var topP: Float
  /// Keeps tokens at least this fraction as probable as the best one; 0 keeps all.
  public var minP: Float
  /// Divides positive and multiplies negative logits of tokens already generated; 1 changes none.
  public var repetitionPenalty: Float
  /// With the step, all there is to the randomness of a draw.
  public var seed: UInt64
  /// Asks for log-probabilities of the chosen token and of this many best ones; nil for none.
  public var topLogprobs: Int?

  public static let maximumTopLogprobs = 100

  public init(
    temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0,
    repetitionPenalty: Float = 1, seed: UInt64 = 0, topLogprobs: Int? = nil
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.seed = seed
    self.topLogprobs = topLogprobs
  }

  /// - Throws: ``SamplingError/invalidParameter(name:value:allowed:)``.
  public func validate() throws {
    func require(_ holds: Bool, _ name: String, _ value: Any, _ allowed: String) throws {
      guard holds else {
        throw SamplingError.invalidParameter(name: name, value: "\(value)", allowed: allowed)
      }
    }
    try require(
      temperature >= 0 && temperature.isFinite, "temperature", temperature, "0 or more")
    try require(topK >= 0, "top_k", topK, "0 (off) or more")
    try require(topP > 0 && topP <= 1, "top_p", topP, "above 0 and at most 1 (off)")
    try require(minP >= 0 && minP <= 1, "min_p", minP, "from 0 (off) to 1")
    try require(
      repetitionPenalty > 0 && repetitionPenalty.isFinite, "repetition_penalty",
      repetitionPenalty, "above 0; 1 is off")
    if let topLogprobs {
      try require(
        (0...Self.maximumTopLogprobs).contains(topLogprobs), "top_logprobs", topLogprobs,
        "from 0 to \(Self.maximumTopLogprobs)")
    }
  }
}
