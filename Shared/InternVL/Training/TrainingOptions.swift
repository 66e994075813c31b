import Training

/// Low-rank adapters beside the products of a part (arXiv:2106.09685).
public struct LoRA: Sendable, Equatable {
  public var rank: Int
  public var alpha: Double
  public var dropout: Double

  public init(rank: Int, alpha: Double, dropout: Double) {
    self.rank = rank
    self.alpha = alpha
    self.dropout = dropout
  }
}

/// What is trained, and how: the same for all slices of a model.
public struct TrainingOptions: Sendable, Equatable {
  public var trainsVision = true
  public var trainsProjector = true
  public var trainsLanguage = true
  /// A part with adapters trains these alone.
  public var visionLoRA: LoRA?
  public var languageLoRA: LoRA?
  /// Of the last vision layer; rises linearly from 0 at the first.
  public var dropPathRate = 0.0
  public var recompute = Recompute.full
  public var seed: UInt64 = 42
  public var beta1 = 0.9
  public var beta2 = 0.999
  public var epsilon = 1e-8
  public var weightDecay = 0.0
  public var decay = WeightDecayGrouping.all
  /// What the loss is made of.
  public var objectives = TrainingObjectives()

  public init() {}
}
