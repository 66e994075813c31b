#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Foundation
#endif

/// The learning rate of each update, as transformers 4.37.2 has it (`optimization.py`:
/// `get_cosine_schedule_with_warmup`, `get_linear_schedule_with_warmup`,
/// `get_constant_schedule_with_warmup`).
///
/// It rises linearly from 0 over the warm-up: update s, counted from 0, takes `value(at: s)`, so
/// that with a warm-up the first update changes nothing. Then it falls along half a cosine or a
/// line to 0 at the last step, or stays, or stays first and falls along a line over the last
/// `decaySteps` (arXiv:2404.06395). With W steps of warm-up, S in all and the last D for the fall,
/// D cut to S − W, that is
///
///     s / W                  for s < W
///     1                      for W ≤ s < S − D
///     1 − (s − (S − D)) / D  for S − D ≤ s < S, and 0 from S on,
///
/// which is `get_wsd_schedule` of later transformers with `decay_type="linear"` and W + D ≤ S.
public struct LearningRate: Sendable, Equatable {
  public var schedule: LearningRateSchedule
  public var peak: Double
  public var warmupSteps: Int
  public var totalSteps: Int
  /// Steps of the fall of ``LearningRateSchedule/warmupStableDecay``.
  public var decaySteps: Int

  public init(
    _ schedule: LearningRateSchedule, peak: Double, warmupSteps: Int, totalSteps: Int,
    decaySteps: Int = 0
  ) {
    self.schedule = schedule
    self.peak = peak
    self.warmupSteps = warmupSteps
    self.totalSteps = totalSteps
    self.decaySteps = decaySteps
  }

  /// Warm-up steps as given, if any, else ⌈ratio · steps⌉ (`TrainingArguments.get_warmup_steps`);
  /// ⌈ratio · steps⌉ of the fall.
  public init(_ configuration: TrainingConfiguration, totalSteps: Int) {
    let given = configuration.warmupSteps ?? 0
    self.init(
      configuration.learningRateSchedule, peak: configuration.learningRate,
      warmupSteps: given > 0
        ? given : LearningRate.steps(ratio: configuration.warmupRatio, of: totalSteps),
      totalSteps: totalSteps,
      decaySteps: LearningRate.steps(ratio: configuration.decayRatio, of: totalSteps))
  }

  /// ⌈ratio · steps⌉.
  public static func steps(ratio: Double, of totalSteps: Int) -> Int {
    Int((ratio * Double(totalSteps)).rounded(.up))
  }

  /// What update `step`, counted from 0, uses. Hugging Face's log shows at step n the value of
  /// update n, which is the one after.
  public func value(at step: Int) -> Double {
    peak * factor(at: step)
  }

  private func factor(at step: Int) -> Double {
    if step < warmupSteps { return Double(step) / Double(max(1, warmupSteps)) }
    let rest = Double(max(1, totalSteps - warmupSteps))
    switch schedule {
    case .cosine:
      let progress = Double(step - warmupSteps) / rest
      // The order of the products is the reference's, half a cycle being 0.5.
      return max(0, 0.5 * (1 + cos(Double.pi * 0.5 * 2 * progress)))
    case .linear:
      return max(0, Double(totalSteps - step) / rest)
    case .constant:
      return 1
    case .warmupStableDecay:
      let decay = max(0, min(decaySteps, totalSteps - warmupSteps))
      let stable = totalSteps - decay
      if step < stable { return 1 }
      return step < totalSteps ? 1 - Double(step - stable) / Double(decay) : 0
    }
  }
}

/// How many steps a run makes, as the Trainer of transformers 4.37.2 counts.
///
/// Micro-batches of an epoch: ⌈samples / micro-batch⌉, the last one perhaps smaller. Steps of an
/// epoch: as many whole global batches as these make, but 1 at least. Steps in all:
/// ⌈epochs · steps of an epoch⌉, or `maxSteps`.
///
/// What is left over makes no step. Hugging Face's Trainer carries the gradients of the left-over
/// micro-batches into the first step of the next epoch; here the samples are left out, and the
/// next epoch deals all samples anew.
public struct TrainingLength: Sendable, Equatable {
  public let samples: Int
  public let globalBatchSize: Int
  public let microBatchesPerStep: Int
  public let stepsPerEpoch: Int
  public let totalSteps: Int

  public init(
    samples: Int, globalBatchSize: Int, microBatchSize: Int = 1, epochs: Double,
    maxSteps: Int? = nil
  ) {
    self.samples = samples
    self.globalBatchSize = max(1, globalBatchSize)
    let micro = max(1, microBatchSize)
    microBatchesPerStep = max(1, globalBatchSize / micro)
    let microBatches = samples / micro + (samples % micro > 0 ? 1 : 0)
    stepsPerEpoch = max(1, microBatches / microBatchesPerStep)
    if let maxSteps, maxSteps > 0 {
      totalSteps = maxSteps
    } else {
      let steps = (epochs * Double(stepsPerEpoch)).rounded(.up)
      totalSteps = Int(exactly: steps) ?? Int.max
    }
  }

  /// Samples of each epoch that no step trains on.
  public var leftOut: Int {
    let (trained, isMore) = stepsPerEpoch.multipliedReportingOverflow(by: globalBatchSize)
    return isMore ? 0 : max(0, samples - trained)
  }

  public init(samples: Int, _ configuration: TrainingConfiguration) {
    self.init(
      samples: samples, globalBatchSize: configuration.globalBatchSize,
      microBatchSize: configuration.microBatchSize, epochs: configuration.epochs,
      maxSteps: configuration.maxSteps)
  }

  /// The `epoch` of the log after `step` updates: a fraction, to two places in Hugging Face's.
  public func epoch(after step: Int) -> Double {
    Double(step) / Double(stepsPerEpoch)
  }
}
