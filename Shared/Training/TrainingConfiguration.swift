/// A training run, as the command line, a YAML file or a request describes it.
///
/// Names follow InternVL's and Hugging Face's arguments: `learningRate` is `--learning-rate` and,
/// in a file, `learning_rate`. ``apply(_:)`` reads files, ``validate()`` finds what does not work.
public struct TrainingConfiguration: Sendable, Equatable {
  /// Model folder to start from.
  public var model = ""
  /// Meta JSON of the data.
  public var meta = ""
  public var output = ""
  /// Starts from the latest valid checkpoint in `output`.
  public var resume = false

  public var globalBatchSize = 512
  /// Samples in a micro-batch.
  public var microBatchSize = 1
  public var epochs = 1.0
  /// Steps at most; nil: as the epochs make.
  public var maxSteps: Int?
  /// Steps of this call: the run ends early and stays resumable, its schedule unchanged.
  public var stopAfter: Int?
  public var maxSequenceLength = 2048

  public var learningRate = 1e-5
  public var learningRateSchedule = LearningRateSchedule.cosine
  public var warmupRatio = 0.03
  /// Instead of the ratio.
  public var warmupSteps: Int?
  /// Share of the steps in which the rate falls, of ``LearningRateSchedule/warmupStableDecay``.
  public var decayRatio = 0.3
  public var weightDecay = 0.05
  public var decay = WeightDecayGrouping.all
  public var beta1 = 0.9
  public var beta2 = 0.999
  public var epsilon = 1e-8
  /// 0: no clipping.
  public var maxGradientNorm = 1.0
  public var lossWeighting = LossWeighting.tokens

  /// What the cross-entropy of the answers counts in the loss; 0: no decoder layer works.
  public var answerLossWeight = 1.0
  /// Of the classes of patches.
  public var patchClassLossWeight = 0.0
  /// Of the naming of image rows, in the first step.
  public var namingLossWeight = 0.0
  /// In the last; nil: as in the first.
  public var namingLossWeightEnd: Double?
  /// What the classes are; nil: `classes.json` beside the meta file.
  public var classes: String?

  public var freezeBackbone = false
  public var freezeProjector = false
  public var freezeLanguage = false
  /// Rank of LoRA on the vision encoder and the language model; 0: none.
  public var useBackboneLoRA = 0
  public var useLanguageLoRA = 0
  /// nil: twice the rank.
  public var loraAlpha: Double?
  public var loraDropout = 0.05

  public var dropPathRate = 0.0
  public var recompute = Recompute.full
  public var seed: UInt64 = 42

  public var groupByLength = false
  public var pack = false
  public var padToMax = false
  public var skipBad = false
  /// Share of the samples whose turns are hidden from each other behind their pictures.
  public var separateTurns = 0.0
  public var template: String?
  public var dataloaderWorkers = 2

  public var schedule = ScheduleKind.oneForwardOneBackward
  /// Slices of layers in each language process, for the interleaved schedule.
  public var virtualStages = 1

  public var saveSteps = 200
  /// 0: keeps all.
  public var saveTotalLimit = 0
  /// "float32" or "bfloat16"; nil: as the model has it.
  public var saveType: String?
  public var replicaSnapshots = false
  public var onNotFinite = NotFinitePolicy.stop
  public var onDiskFull = DiskFullPolicy.stop
  /// Writes a Chrome trace of every stage's actions.
  public var trace: String?

  public init() {}
}

public enum LearningRateSchedule: String, Sendable, Codable, CaseIterable {
  case cosine, linear, constant
  case warmupStableDecay = "warmup_stable_decay"
}

/// What weight decay applies to.
public enum WeightDecayGrouping: String, Sendable, Codable, CaseIterable {
  /// Every parameter: the recipe with an optimizer section in DeepSpeed's file.
  case all
  /// Not biases and the norms that transformers knows: Hugging Face's Trainer.
  case hf
}

public enum LossWeighting: String, Sendable, Codable, CaseIterable {
  /// The mean over all labelled tokens of the global batch.
  case tokens
  /// The mean over micro-batches of their means, as the reference has it.
  case microBatch = "micro-batch"
}

/// Which activations are computed again in the backward pass instead of saved.
public enum Recompute: String, Sendable, Codable, CaseIterable {
  /// All but the layers' inputs.
  case full
  /// What is cheap to compute again: norms and activation functions.
  case selective
  case none
}

public enum ScheduleKind: String, Sendable, Codable, CaseIterable {
  case gpipe = "gpipe"
  case oneForwardOneBackward = "1f1b"
  case interleaved = "interleaved"
  case zeroBubble = "zb-h1"
  /// One action at a time in the whole mesh: what pipelining is measured against.
  case serial = "serial"
}

/// What happens at a loss or gradient that is NaN or infinite.
public enum NotFinitePolicy: String, Sendable, Codable, CaseIterable {
  case stop, skip
}

/// What happens when a checkpoint does not fit on the disk.
public enum DiskFullPolicy: String, Sendable, Codable, CaseIterable {
  case stop
  case goOn = "go-on"
}
