import Checkpoint
import InternVL
import Threads
import Training

/// What a run must find as it was to go on.
extension TrainingRun {
  /// The newest checkpoint on disk that is whole; where the run is to go on from it, by all its
  /// bytes. Tells of those that are passed over.
  func latestWhole() async throws -> CheckpointFolder? {
    let thread = DedicatedThread(name: "checkpoint")
    let (events, readsAll) = (events, configuration.resume)
    for checkpoint in CheckpointFolder.all(in: configuration.output).reversed() {
      try Task.checkCancellation()
      let telling = Task {
        try await Task.sleep(for: .seconds(2))
        await events(.notice("comparing the digests of \(checkpoint.path)"))
      }
      defer { telling.cancel() }
      do {
        try await thread.run { _ in try checkpoint.check(digests: readsAll) }
        return checkpoint
      } catch {
        passedOver.insert(checkpoint.step)
        await events(.warning("\(checkpoint.path) is not whole, and is passed over: \(error)"))
      }
    }
    return nil
  }

  /// The state before the first step.
  func fresh() -> TrainerState {
    var notes = [ResumeNote.model: modelIdentity]
    for (name, value) in configuration.numericSettings { notes[ResumeNote.setting + name] = value }
    return TrainerState(
      maxSteps: steps, epochs: configuration.epochs,
      trainBatchSize: configuration.microBatchSize, saveSteps: configuration.saveSteps,
      seed: configuration.seed, data: .init(digest: source.digest),
      configurationDigest: configuration.numericDigest, notes: notes)
  }

  /// - Throws: ``TrainingRunError/otherRun(checkpoint:differences:)`` when the run could not go on
  ///   as it began.
  func requireSame(_ state: TrainerState, _ checkpoint: CheckpointFolder) throws {
    let differences = differences(state)
    guard differences.isEmpty else {
      throw TrainingRunError.otherRun(checkpoint: checkpoint.path, differences: differences)
    }
  }

  /// The first kind of differences there is: others may follow from it.
  private func differences(_ state: TrainerState) -> [String] {
    if let digest = state.notes[ResumeNote.model], digest != modelIdentity {
      return ["another model"]
    }
    let settings = configuration.differences(from: state)
    if !settings.isEmpty { return settings }
    if state.data.digest != source.digest { return ["other data"] }
    if state.maxSteps != steps { return ["\(state.maxSteps) steps in all, not \(steps)"] }
    return []
  }
}

/// Names of a checkpoint's notes.
private enum ResumeNote {
  static let model = "model"
  static let setting = "setting."
}

extension StagePlacement {
  /// - Throws: ``TrainingRunError/unsuitableMesh(reason:)`` when the schedule needs other stages.
  func requireFit(_ configuration: TrainingConfiguration) throws {
    guard let first = language.first else { return }
    if configuration.schedule == .interleaved, language.count < 2 {
      throw TrainingRunError.unsuitableMesh(
        reason: "schedule interleaved needs at least 2 language stages, and the mesh has 1; start "
          + "one with more, or choose schedule 1f1b")
    }
    if first.chunks != configuration.virtualStages {
      throw TrainingRunError.unsuitableMesh(
        reason: "\(first.name) holds \(first.chunks) slices of layers, and virtual_stages is "
          + "\(configuration.virtualStages); start the mesh so, or change the setting")
    }
  }

  /// - Throws: ``TrainingRunError/unsuitableMesh(reason:)`` when a tensor would have to be in two
  ///   places.
  func requireFit(_ model: ModelConfiguration, _ options: TrainingOptions) throws {
    let isOneTensor =
      model.language.tiesEmbeddings && options.trainsLanguage && options.languageLoRA == nil
    guard isOneTensor, language.reduce(0, { $0 + $1.chunks }) > 1 else { return }
    throw TrainingRunError.unsuitableMesh(
      reason: "tied embeddings: use one language stage; embedding table and head are one tensor in "
        + "this model")
  }
}

extension TrainingConfiguration {
  /// The settings on which the numbers of a run depend, and defaults of all others: where it runs,
  /// how it is cut, and how often it is saved.
  private var numeric: TrainingConfiguration {
    var copy = TrainingConfiguration()
    copy.globalBatchSize = globalBatchSize
    copy.microBatchSize = microBatchSize
    copy.epochs = epochs
    copy.maxSteps = maxSteps
    copy.maxSequenceLength = maxSequenceLength
    copy.learningRate = learningRate
    copy.learningRateSchedule = learningRateSchedule
    copy.warmupRatio = warmupRatio
    copy.warmupSteps = warmupSteps
    copy.decayRatio = decayRatio
    copy.weightDecay = weightDecay
    copy.decay = decay
    copy.beta1 = beta1
    copy.beta2 = beta2
    copy.epsilon = epsilon
    copy.maxGradientNorm = maxGradientNorm
    copy.lossWeighting = lossWeighting
    copy.answerLossWeight = answerLossWeight
    copy.patchClassLossWeight = patchClassLossWeight
    copy.namingLossWeight = namingLossWeight
    copy.namingLossWeightEnd = namingLossWeightEnd
    copy.freezeBackbone = freezeBackbone
    copy.freezeProjector = freezeProjector
    copy.freezeLanguage = freezeLanguage
    copy.useBackboneLoRA = useBackboneLoRA
    copy.useLanguageLoRA = useLanguageLoRA
    copy.loraAlpha = loraAlpha
    copy.loraDropout = loraDropout
    copy.dropPathRate = dropPathRate
    copy.seed = seed
    copy.groupByLength = groupByLength
    copy.pack = pack
    copy.padToMax = padToMax
    copy.skipBad = skipBad
    copy.separateTurns = separateTurns
    copy.template = template
    return copy
  }

  var numericDigest: String { Digest.sha256(Array(numeric.json.utf8)) }

  /// The settings that are others than a checkpoint's. One that it does not note, for it is newer
  /// than the checkpoint, had its default then.
  func differences(from state: TrainerState) -> [String] {
    let noted = state.notes.filter { $0.key.hasPrefix(ResumeNote.setting) }
    let settings = numericSettings
    let known = Set(settings.map { ResumeNote.setting + $0.name })
    guard !noted.isEmpty, noted.keys.allSatisfy(known.contains) else {
      return state.configurationDigest == numericDigest
        ? [] : ["other settings that decide about the numbers"]
    }
    return zip(settings, TrainingConfiguration().numericSettings).compactMap { own, initial in
      let before = noted[ResumeNote.setting + own.name] ?? initial.value
      return before == own.value ? nil : "\(own.name) \(before), not \(own.value)"
    }
  }

  var numericSettings: [(name: String, value: String)] {
    numeric.settings.map { ($0.name, "\($0.value)") }
  }
}
