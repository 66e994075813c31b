import Checkpoint

/// What of the model is trained, as each of its slices has to know.
struct TrainingParts {
  let configuration: ModelConfiguration
  let options: TrainingOptions

  var vision: Bool { options.trainsVision || options.visionLoRA != nil }
  var projector: Bool { options.trainsProjector }
  var language: Bool { options.trainsLanguage || options.languageLoRA != nil }

  /// Whether anything in front of a vision layer is trained.
  func trains(beforeVision layer: Int) -> Bool {
    // Adapters stand in layers alone; the part itself begins with the embeddings.
    layer > 0 && vision
  }

  var trainsBeforeProjector: Bool {
    vision && (options.visionLoRA == nil || configuration.usedVisionLayers > 0)
  }

  /// Whether image rows need a gradient.
  var trainsBeforeLanguage: Bool { trainsBeforeProjector || projector }

  func trains(beforeLanguage layer: Int) -> Bool {
    trainsBeforeLanguage || layer > 0 && language
  }

  func visionWeights(_ weights: TrainingWeights) -> StageWeights.Training {
    training(
      weights, options.trainsVision, adapters: options.visionLoRA, prefix: "vision_model")
  }

  func projectorWeights(_ weights: TrainingWeights) -> StageWeights.Training {
    training(weights, options.trainsProjector, adapters: nil, prefix: "mlp1")
  }

  func languageWeights(_ weights: TrainingWeights) -> StageWeights.Training {
    var training = training(
      weights, options.trainsLanguage, adapters: options.languageLoRA, prefix: "language_model")
    training.wantsWholeTable = options.objectives.naming
    // Nothing else of it gets a gradient.
    if !options.objectives.answers {
      training.only = WeightNames.languageEmbedding(configuration).name
    }
    return training
  }

  private func training(
    _ weights: TrainingWeights, _ trains: Bool, adapters: LoRA?, prefix: String
  ) -> StageWeights.Training {
    let norm = configuration.vision.norm
    return StageWeights.Training(
      weights: weights, trains: trains && adapters == nil, adapters: adapters,
      seed: options.seed, prefix: prefix
    ) { WeightDecayRule.decaysInHF($0, visionNorm: norm) }
  }
}

/// Hugging Face's Trainer lets everything decay but biases and the norms that transformers
/// registers: PyTorch's LayerNorm and LlamaRMSNorm. The vision encoder's own root-mean-square
/// norm is not among them (trainer.py and pytorch_utils.py of transformers 4.37.2).
enum WeightDecayRule {
  static func decaysInHF(_ name: String, visionNorm: VisionConfiguration.Normalization) -> Bool {
    if name.hasSuffix(".bias") || name.hasPrefix("mlp1.0.") { return false }
    if name.hasPrefix("language_model.") { return !name.hasSuffix("norm.weight") }
    let isVisionNorm = name.hasSuffix(".norm1.weight") || name.hasSuffix(".norm2.weight")
    return !(isVisionNorm && visionNorm == .layer)
  }
}
