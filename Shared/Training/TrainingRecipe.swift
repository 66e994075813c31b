/// Settings of the reference's training scripts.
public enum TrainingRecipe: String, Sendable, CaseIterable {
  /// The fine-tuning that made the release (InternVL at tag v1.2,
  /// `internvl_chat_v1_2_hermes2_yi34b_448_finetune.sh`): 1.27 million samples, all 40 billion
  /// parameters.
  case internVLChatV12 = "internvl-chat-v1.2"
  /// Fine-tuning of the released model on one's own data, the vision encoder frozen
  /// (`…_448_res_2nd_finetune_full.sh`).
  case secondFineTune = "internvl-chat-v1.2-finetune"
  /// The same with adapters on the language model alone (`…_448_res_2nd_finetune_lora.sh`).
  case secondFineTuneLoRA = "internvl-chat-v1.2-finetune-lora"

  /// - Throws: ``TrainingError/unknownRecipe(name:known:)``.
  public init(name: String) throws {
    guard let recipe = TrainingRecipe(rawValue: name.lowercased()) else {
      throw TrainingError.unknownRecipe(
        name: name, known: TrainingRecipe.allCases.map(\.rawValue))
    }
    self = recipe
  }
}

extension TrainingConfiguration {
  /// The defaults with a recipe's settings.
  public init(_ recipe: TrainingRecipe) {
    self.init()
    apply(recipe)
  }

  /// Takes over everything that the recipe's script sets.
  ///
  /// A micro-batch is what one of the script's devices takes at once. The release's script gives
  /// DeepSpeed no optimizer, so that weight decay spares biases and norms, as Hugging Face's
  /// Trainer has it; the later scripts give it one, and everything decays. The loss stays weighted
  /// by tokens; the scripts' way is `loss_weighting: micro-batch`.
  public mutating func apply(_ recipe: TrainingRecipe) {
    learningRate = 1e-5
    learningRateSchedule = .cosine
    warmupRatio = 0.03
    warmupSteps = nil
    weightDecay = 0.05
    beta1 = 0.9
    beta2 = 0.999
    epsilon = 1e-8
    maxGradientNorm = 1
    epochs = 1
    maxSteps = nil
    maxSequenceLength = 2048
    recompute = .full
    seed = 42
    saveSteps = 200
    saveTotalLimit = 1
    useBackboneLoRA = 0
    useLanguageLoRA = 0
    loraAlpha = nil
    loraDropout = 0.05
    pack = false
    switch recipe {
    case .internVLChatV12:
      globalBatchSize = 512
      microBatchSize = 8
      dropPathRate = 0.4
      freezeBackbone = false
      freezeProjector = false
      freezeLanguage = false
      decay = .hf
      groupByLength = false
      dataloaderWorkers = 2
    case .secondFineTune:
      globalBatchSize = 128
      microBatchSize = 4
      dropPathRate = 0
      freezeBackbone = true
      freezeProjector = false
      freezeLanguage = false
      decay = .all
      groupByLength = true
      dataloaderWorkers = 4
    case .secondFineTuneLoRA:
      globalBatchSize = 16
      microBatchSize = 4
      dropPathRate = 0
      freezeBackbone = true
      freezeProjector = true
      freezeLanguage = true
      useLanguageLoRA = 16
      decay = .all
      groupByLength = true
      dataloaderWorkers = 4
    }
  }
}
