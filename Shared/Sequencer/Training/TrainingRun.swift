import Checkpoint
import InternVL
import Logging
import Synchronization
import Tensors
import Threads
import Training
import Transport

/// A training run: takes its data step by step, has the stages compute, decides about the
/// gradient's clipping and the learning rate, and sees to logs and checkpoints.
///
/// What is computed depends on the configuration, the data and the model alone: not on how the
/// model is split, nor on whether the run was stopped, resumed or lost stages on its way.
public actor TrainingRun {
  public typealias Events = @Sendable (TrainingEvent) async -> Void

  let configuration: TrainingConfiguration
  let stages: any TrainingStages
  let source: any StepSource
  let model: ModelConfiguration
  let start: CheckpointReader
  let modelIdentity: String
  let folder: RunFolder
  let limits: TrainingLimits
  let logger: Logger
  let events: Events
  let learningRate: LearningRate
  let options: TrainingOptions
  let arithmetic: ModelArithmetic

  /// Where the run stands, after ``TrainerState/globalStep`` steps.
  var state = TrainerState()
  var layout: CheckpointLayout?
  var placement = StagePlacement(
    vision: [], projector: .init(name: "projector"), language: [])
  var trainingBytes: [Int] = []
  var saving: Saving?
  var lastCheckpoint: CheckpointFolder?
  var replicas: String?
  /// The furthest step that was ever done, and how often one after it was begun in vain.
  var furthest = 0
  var recoveries = 0
  /// Tells the tries of steps apart, also from those of earlier runs on the same mesh.
  private var attempts = Int.random(in: 1...1 << 30)
  /// An update was begun and is not known to have ended well with everybody.
  var isUpdating = false
  /// It was said that the log has no room.
  var logIsFull = false
  /// Steps whose checkpoints on disk are not to be gone back to.
  var passedOver: Set<Int> = []
  /// A checkpoint came too late, and is due.
  var savesAgain = false
  var lastLoss: Double?
  var speed = SpeedMeter()
  /// Of all steps; nil: nobody asked for it.
  var trace: Trace?
  var restoredFrom: CheckpointFolder?
  /// What the line of the next step says besides its numbers.
  var notes: [(name: String, text: String)] = []
  private var peak: Double?
  private let endIsWanted = Atomic<Bool>(false)

  /// - Parameters:
  ///   - source: the data.
  ///   - events: told of everything, in order; the run waits for it.
  /// - Throws: `TrainingError` of the configuration; `CheckpointError` of the model's folder;
  ///   ``TrainingRunError/unusableFolder(path:reason:)``.
  public init(
    _ configuration: TrainingConfiguration, stages: any TrainingStages, source: any StepSource,
    limits: TrainingLimits = TrainingLimits(), logger: Logger, events: @escaping Events
  ) throws {
    try configuration.validate()
    self.configuration = configuration
    self.stages = stages
    self.source = source
    self.limits = limits
    self.logger = logger
    self.events = events
    model = try ModelConfiguration.load(folder: configuration.model)
    try model.requireFloats(folder: configuration.model, purpose: "cannot be trained")
    start = try CheckpointReader(folder: configuration.model)
    modelIdentity = try start.identity(model)
    if let trace = configuration.trace { try RunFolder.requireWritable(trace) }
    folder = try RunFolder(configuration.output)
    var options = TrainingOptions(configuration)
    options.objectives = source.objectives
    self.options = options
    learningRate = LearningRate(configuration, totalSteps: source.length.totalSteps)
    arithmetic = ModelArithmetic(model)
  }

  /// Has the run end after the step that is under way, with a checkpoint.
  public nonisolated func endEarly() { endIsWanted.store(true, ordering: .relaxed) }

  var steps: Int { source.length.totalSteps }
  var step: Int { state.globalStep }

  /// Trains to the end.
  ///
  /// - Throws: ``TrainingRunError``; what the data, the stages and the disk throw.
  public func run() async throws -> TrainingEnd {
    try folder.take()
    defer { folder.release() }
    do {
      let end = try await train()
      // Whoever hears of the end may go on with the folder.
      folder.release()
      await stages.release()
      await events(.ended(end))
      return end
    } catch {
      await keepWhatIsDone(after: error)
      saving?.cancel()
      _ = await saving?.task.result
      // A task of its own has no part in this one's cancellation.
      await Task { [stages, step] in
        await stages.abandon(step: UInt64(step + 1))
        await stages.release()
      }.value
      await nameReplicas()
      try? writeTrace()
      throw error
    }
  }

  private func train() async throws -> TrainingEnd {
    if configuration.replicaSnapshots {
      replicas = try ReplicaFolder.path(for: configuration.output)
    }
    try await begin()
    let first = step
    let last = configuration.stopAfter.map { min(steps, first + $0) } ?? steps
    await announce()
    while true {
      do {
        while step < last, !endIsWanted.load(ordering: .relaxed) {
          try Task.checkCancellation()
          try await makeStep()
          try await saveWhenDue(isLast: step == last)
        }
        try await saveAtEnd()
        break
      } catch {
        guard error.isStageLoss, !Task.isCancelled else { throw error }
        try await recover(from: error)
      }
    }
    let isSaved = step == 0 || lastCheckpoint?.step == step
    if !isSaved {
      let last = lastCheckpoint.map { "the last checkpoint is of step \($0.step)" }
      await events(.warning("what was learnt is not on disk: \(last ?? "there is no checkpoint")"))
    }
    do {
      try writeTrace()
    } catch {
      try await passFullLog(error, step: step)
    }
    if let trace, let missing = trace.firstMissingStep {
      await events(
        .warning(
          "the trace ends before step \(missing): more than \(trace.limit) actions are not kept"))
    }
    if let replicas { removeFolder(replicas) }
    return TrainingEnd(
      reason: step >= steps
        ? .finished : endIsWanted.load(ordering: .relaxed) && step < last ? .interrupted : .stopped,
      step: step, steps: steps, loss: lastLoss, checkpoint: lastCheckpoint?.path,
      isSaved: isSaved)
  }

  // MARK: A step

  private func makeStep() async throws {
    let number = step + 1
    let batch = try await source.batch(after: step)
    let clock = ContinuousClock()
    let began = clock.now
    attempts += 1
    var work = batch.work(step: number, attempt: attempts, schedule: configuration.schedule)
    work.objectives = options.objectives
    let outcome = try await stages.step(work)
    let answers = batch.plan.loss(sums: outcome.losses.map(\.sum))
    let parts = batch.objectives?.losses(answers: answers, outcome.objectives)
    let loss = parts?.total ?? answers
    let norm = outcome.gradientNorm
    let rate = learningRate.value(at: step)
    var log = TrainingLog(
      step: number, epoch: source.length.epoch(after: number), loss: loss, learningRate: rate,
      gradNorm: norm)
    log.answerLoss = parts?.answers
    log.patchClassLoss = parts?.patchClasses
    log.patchAccuracy = parts?.patchAccuracy
    log.namingLoss = parts?.naming
    log.notes = notes
    let isFinite = loss.isFinite && norm.isFinite
    if !isFinite { try await refuse(batch, outcome, number, loss, norm, &log) }
    isUpdating = true
    try await stages.update(
      ParameterUpdate(
        step: UInt64(number), learningRate: rate, gradientScale: clipFactor(norm),
        skips: !isFinite))
    isUpdating = false
    let seconds = (clock.now - began) / .seconds(1)
    measure(&log, batch, outcome, seconds)
    try await finish(log, batch, isFinite: isFinite)
    notes = []
  }

  /// As torch.nn.utils.clip_grad_norm_ has it.
  private func clipFactor(_ norm: Double) -> Double {
    let limit = configuration.maxGradientNorm
    guard limit > 0, norm.isFinite else { return 1 }
    return min(1, limit / (norm + 1e-6))
  }

  /// Names the samples of a step whose loss or gradient is no number.
  ///
  /// - Throws: ``TrainingRunError/notFinite(step:what:samples:)`` unless such steps are skipped.
  private func refuse(
    _ batch: StepBatch, _ outcome: StepOutcome, _ number: Int, _ loss: Double, _ norm: Double,
    _ log: inout TrainingLog
  ) async throws {
    let parts = Set(outcome.objectives.filter { !$0.sum.isFinite }.map(\.microBatch))
    let culprits = outcome.losses.indices.filter {
      !outcome.losses[$0].sum.isFinite || parts.contains($0)
    }
    let what = culprits.isEmpty ? "the gradient's norm (\(norm))" : "the loss (\(loss))"
    let names = batch.names(
      of: culprits.isEmpty ? Array(batch.plan.microBatches.indices) : culprits)
    let error = TrainingRunError.notFinite(step: number, what: what, samples: names)
    guard configuration.onNotFinite == .skip else {
      // The state before the step is a good one.
      try? await stages.update(
        ParameterUpdate(step: UInt64(number), learningRate: 0, gradientScale: 0, skips: true))
      try? await saveAtEnd()
      throw error
    }
    let list = names.joined(separator: ", ")
    log.notes.append(("skipped", "\(what) is not a finite number: \(list)"))
    await events(
      .warning(
        "step \(number) is skipped: \(what) is not a finite number; its samples are \(list)"))
  }

  /// Takes a step into the state and the logs.
  private func finish(_ log: TrainingLog, _ batch: StepBatch, isFinite: Bool) async throws {
    state.globalStep = log.step
    state.epoch = log.epoch
    if isFinite { state.updates += 1 }
    state.tokensSeen += batch.plan.tokens
    state.totalFLOPs += arithmetic.step(batch.plan, options)
    let position = source.position(after: log.step)
    state.data.epoch = position.epoch
    state.data.samples = position.samples
    state.log.append(
      .init(
        step: log.step, epoch: log.epoch, loss: log.loss, learningRate: log.learningRate,
        gradientNorm: log.gradNorm))
    if state.log.count > 2 * TrainerState.maximumLogEntries {
      state.log.removeFirst(state.log.count - TrainerState.maximumLogEntries)
    }
    lastLoss = log.loss
    if log.step > furthest {
      furthest = log.step
      recoveries = 0
    }
    do {
      try folder.append(log)
    } catch {
      try await passFullLog(error, step: log.step)
    }
    await events(.step(log, of: steps, remaining: speed.remaining(steps: steps - log.step)))
  }

  private func measure(
    _ log: inout TrainingLog, _ batch: StepBatch, _ outcome: StepOutcome, _ seconds: Double
  ) {
    speed.add(seconds)
    log.stepSeconds = seconds
    log.labelledTokens = batch.plan.labelledTokens
    if seconds > 0 {
      log.tokensPerSecond = Double(batch.plan.tokens) / seconds
      log.samplesPerSecond = Double(batch.plan.samples) / seconds
      if let peak { log.flopUtilization = arithmetic.step(batch.plan, options) / seconds / peak }
    }
    var own = Trace(processes: placement.all.map(\.name))
    for (process, actions) in outcome.timings.enumerated() {
      for timed in actions {
        let span = Trace.Span(
          process: process, step: log.step, action: timed.action, start: Int64(timed.start),
          duration: Int64(timed.duration))
        own.add(span)
        trace?.add(span)
      }
    }
    log.bubble = own.bubble()
    log.scheduledBubble = outcome.schedule.flatMap {
      try? Simulation($0, replaying: own, step: log.step).bubble
    }
    for (index, stage) in placement.all.enumerated() {
      let saved = index < outcome.peakSavedBytes.count ? outcome.peakSavedBytes[index] : 0
      let held = index < trainingBytes.count ? trainingBytes[index] : 0
      log.memory.append((stage.name, held + saved))
    }
  }

  // MARK: The beginning

  /// Sets everything to where the run begins: a checkpoint, or the model.
  private func begin() async throws {
    let found = try await latestWhole()
    if !configuration.resume, let found {
      throw TrainingRunError.outputInUse(folder: configuration.output, step: found.step)
    }
    if !configuration.resume, let replicas { removeFolder(replicas) }
    if configuration.replicaSnapshots {
      replicas = try ReplicaFolder.path(for: configuration.output)
    }
    peak = await ArithmeticPeak.measured()
    try await bringBack(step: 1)
    if configuration.resume, step == 0 {
      await events(
        .notice(
          "\(configuration.output) has no \(passedOver.isEmpty ? "" : "whole ")checkpoint; the run "
            + "begins with the model"))
    }
  }

  private func announce() async {
    var start = TrainingStart()
    start.output = configuration.output
    start.step = step
    start.steps = steps
    start.samples = source.length.samples
    start.leftOut = source.length.leftOut
    start.skipped = source.skipped
    for held in (layout?.shares ?? []) {
      for entry in held.model.flatMap(\.entries) {
        start.parameters += entry.shape.reduce(1, *)
      }
      for entry in held.optimizer?.entries ?? []
      where entry.name.hasPrefix("exp_avg.")
        && !ObjectivesFolder.holds(String(entry.name.dropFirst("exp_avg.".count)))
      {
        start.trainedParameters += entry.shape.reduce(1, *)
      }
    }
    start.stages = placement.all.map(\.name)
    start.trainingBytes = trainingBytes
    start.schedule = configuration.schedule.rawValue
    start.microBatches = source.length.microBatchesPerStep
    start.peakFLOPS = peak
    await events(.started(start))
    let (size, samples) = (configuration.globalBatchSize, source.length.samples)
    if size > samples {
      await events(
        .warning(
          "global_batch_size is \(size), and the samples are \(samples): every step takes all of "
            + "them"))
    }
  }
}

/// How patient a run is.
public struct TrainingLimits: Sendable {
  /// How long it waits for stages to come back.
  public var recoveryTime = Duration.seconds(180)
  /// How often the same step may lose a stage.
  public var recoveries = 5
  /// How long it waits, when a stage was lost, for the end of a checkpoint that is being written.
  public var savePatience = Duration.seconds(20)

  public init() {}
}

extension TrainingOptions {
  /// What a run's configuration says about the computing.
  public init(_ configuration: TrainingConfiguration) {
    self.init()
    func adapter(_ rank: Int) -> LoRA? {
      rank > 0
        ? LoRA(
          rank: rank, alpha: configuration.loraAlpha ?? Double(2 * rank),
          dropout: configuration.loraDropout) : nil
    }
    visionLoRA = adapter(configuration.useBackboneLoRA)
    languageLoRA = adapter(configuration.useLanguageLoRA)
    trainsVision = !configuration.freezeBackbone || visionLoRA != nil
    trainsProjector = !configuration.freezeProjector
    trainsLanguage = !configuration.freezeLanguage || languageLoRA != nil
    dropPathRate = configuration.dropPathRate
    recompute = configuration.recompute
    seed = configuration.seed
    beta1 = configuration.beta1
    beta2 = configuration.beta2
    epsilon = configuration.epsilon
    weightDecay = configuration.weightDecay
    decay = configuration.decay
  }
}

/// Seconds of a step, smoothed.
struct SpeedMeter: Sendable {
  private var mean: Double?

  mutating func add(_ seconds: Double) {
    mean = mean.map { 0.9 * $0 + 0.1 * seconds } ?? seconds
  }

  func remaining(steps: Int) -> Double? { mean.map { $0 * Double(steps) } }
}
