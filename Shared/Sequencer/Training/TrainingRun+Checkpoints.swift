import Checkpoint
import InternVL
import Synchronization
import Tensors
import Threads
import Training
import Transport

/// Checkpoints, and going back to them.
extension TrainingRun {
  /// A checkpoint that is being written.
  final class Saving: Sendable {
    let step: Int
    let task: Task<CheckpointFolder, any Error>
    /// The stages' part.
    let writing: Task<Int, any Error>
    private let flag = Atomic<Bool>(false)

    init(step: Int, task: Task<CheckpointFolder, any Error>, writing: Task<Int, any Error>) {
      self.step = step
      self.task = task
      self.writing = writing
      Task {
        _ = await task.result
        self.flag.store(true, ordering: .relaxed)
      }
    }

    var isOver: Bool { flag.load(ordering: .relaxed) }

    func cancel() {
      writing.cancel()
      task.cancel()
    }
  }

  // MARK: Writing

  /// After a step: into memory, and to disk where it is due. Throws what befell the checkpoint
  /// before.
  func saveWhenDue(isLast: Bool) async throws {
    if let replicas {
      try await finishSaving()
      if isLast { return }
      try await beginSaving(in: replicas, isVolatile: true)
    }
    guard step.isMultiple(of: configuration.saveSteps) || savesAgain, !isLast else {
      if let saving, saving.isOver { try await finishSaving() }
      return
    }
    savesAgain = false
    // Two at a time would need the room of two snapshots.
    try await finishSaving()
    try await beginSaving(in: configuration.output, isVolatile: false)
  }

  /// The last one; the run is not over before it is on disk.
  func saveAtEnd() async throws {
    try await finishSaving()
    // After no step there is nothing that the model's folder does not have.
    if step == 0 || lastCheckpoint?.step == step { return }
    try await beginSaving(in: configuration.output, isVolatile: false)
    try await finishSaving()
  }

  private func beginSaving(in output: String, isVolatile: Bool) async throws {
    guard let layout else { preconditionFailure("a run that is not prepared has nothing to save") }
    let step = step
    let clock = ContinuousClock()
    let began = clock.now
    let scalarType = saveType
    do {
      let writer = try CheckpointWriter.begin(
        output: output, step: step, layout: layout, source: start)
      let writing: Task<Int, any Error>
      do {
        writing = try await stages.save(
          SaveWork(
            folder: writer.folder, updates: state.updates, layout: layout, scalarType: scalarType,
            mergesLoRA: options.visionLoRA != nil || options.languageLoRA != nil,
            isVolatile: isVolatile))
      } catch {
        writer.abandon()
        throw error
      }
      let state = state
      let limit = isVolatile ? 1 : configuration.saveTotalLimit
      let thread = DedicatedThread(name: "checkpoint")
      let events = events
      let adapters = isVolatile ? [] : options.adapterFolders(baseModel: configuration.model)
      let task = Task {
        do {
          let bytes = try await writing.value
          let folder = try await thread.run { flag in
            let folder = try writer.commit(
              state: state, saveType: scalarType, adapters: adapters, digests: !isVolatile,
              isCancelled: { flag.isCancelled })
            CheckpointFolder.prune(output, keeping: limit)
            return folder
          }
          if !isVolatile {
            await events(
              .saved(
                path: folder.path, step: step, bytes: bytes,
                seconds: (clock.now - began) / .seconds(1)))
          }
          return folder
        } catch {
          writer.abandon()
          throw error
        }
      }
      saving = Saving(step: step, task: task, writing: writing)
    } catch {
      try await passDiskFull(error, step: step)
    }
  }

  /// Waits for the checkpoint that is being written.
  func finishSaving() async throws {
    guard let saving else { return }
    self.saving = nil
    do {
      take(try await saving.task.value)
    } catch {
      let status = error as? RPCError
      // Some stage was at its next update already, or still at a checkpoint that was given up.
      let isLate = status?.code == .failedPrecondition
      let isBusy = status?.code == .resourceExhausted && status?.message.contains("already") == true
      if isLate && saving.step < step || isBusy {
        savesAgain = true
        return
      }
      try await passDiskFull(error, step: saving.step)
    }
  }

  /// - Throws: `error`, unless it is a full disk and the run is to go on with one.
  private func passDiskFull(_ error: any Error, step: Int) async throws {
    guard error.isDiskFull else { throw error }
    let reason = (error as? RPCError)?.message ?? "\(error)"
    guard configuration.onDiskFull == .goOn else {
      throw TrainingRunError.diskFull(step: step, reason: reason)
    }
    await events(
      .warning("the checkpoint of step \(step) has no room, and the run goes on: \(reason)"))
  }

  /// Knows of a checkpoint that was written.
  private func take(_ checkpoint: CheckpointFolder) {
    guard checkpoint.path.hasPrefix(configuration.output) else { return }
    lastCheckpoint = checkpoint
    passedOver.remove(checkpoint.step)
  }

  // MARK: Going back

  /// A stage was lost: waits until it is back, and goes back with everybody to the last
  /// checkpoint.
  ///
  /// - Throws: ``TrainingRunError`` `noProgress`, `notRecovered`; what cannot be mended.
  func recover(from error: any Error) async throws {
    var last = (error as? RPCError)?.message ?? "\(error)"
    let lostStep = step + 1
    recoveries += 1
    guard recoveries <= limits.recoveries else {
      throw TrainingRunError.noProgress(step: lostStep, recoveries: recoveries - 1, last: last)
    }
    await events(.lost(step: lostStep, reason: last))
    saving?.cancel()
    if let saved = try? await saving?.task.value { take(saved) }
    saving = nil
    await stages.abandon(step: UInt64(lostStep))
    let deadline = Deadline.after(limits.recoveryTime)
    var patience = 50
    while true {
      do {
        try await stages.ready(within: deadline.remaining)
        try await restore()
        break
      } catch {
        // A stage may be at work on an update that nobody waits for any more.
        let isBusy = (error as? RPCError)?.code == .failedPrecondition && patience > 0
        patience -= 1
        guard error.isStageLoss || isBusy, !Task.isCancelled else { throw error }
        last = (error as? RPCError)?.message ?? "\(error)"
        guard !deadline.isPassed else {
          throw TrainingRunError.notRecovered(
            step: lostStep, seconds: Int(limits.recoveryTime.components.seconds), last: last)
        }
        // A stage may look alive for a moment after its end.
        try await Task.sleep(for: .milliseconds(100))
      }
    }
    await events(
      .recovered(step: step, from: restoredFrom?.path ?? configuration.model))
  }

  /// The newest state there is: in memory, on disk, or the model's own.
  private var newest: CheckpointFolder? {
    // A run that does not resume has checked that there were no checkpoints before it.
    let onDisk = CheckpointFolder.all(in: configuration.output).last {
      !passedOver.contains($0.step) && (try? $0.check()) != nil
    }
    let inMemory = replicas.flatMap { CheckpointFolder.latestValid(in: $0).found }
    guard let inMemory else { return onDisk }
    return inMemory.step >= (onDisk?.step ?? 0) ? inMemory : onDisk
  }

  /// Puts stages, state and logs to the newest checkpoint.
  func restore() async throws {
    let checkpoint = newest
    var restored = TrainerState()
    if let checkpoint {
      restored = try TrainerState.load(folder: checkpoint.path)
      try requireSame(restored, checkpoint)
    }
    placement = try await stages.placement()
    try placement.requireFit(model, options)
    try placement.requireFit(configuration)
    let prepared = try await stages.prepare(
      TrainingPreparation(options: options, checkpoint: checkpoint?.path))
    trainingBytes = prepared.trainingBytes
    layout = try CheckpointLayout(
      stages: prepared.held, configuration: model, source: start, saveType: saveType)
    if checkpoint == nil { restored = fresh() }
    state = restored
    state.saveSteps = configuration.saveSteps
    state.maxSteps = steps
    restoredFrom = checkpoint
    if let checkpoint, checkpoint.path.hasPrefix(configuration.output) {
      lastCheckpoint = checkpoint
    }
    try folder.rewind(to: state.globalStep)
    rewindTrace()
  }

  private func rewindTrace() {
    guard configuration.trace != nil else { return }
    var kept = Trace(processes: placement.all.map(\.name))
    for span in trace?.spans ?? [] where span.step <= step { kept.add(span) }
    trace = kept
  }

  /// Writes what `trace` asks for.
  func writeTrace() throws {
    guard let trace, let path = configuration.trace else { return }
    try RunFolder.replace(path, with: Array(trace.chromeJSON.utf8))
  }

  private var saveType: ScalarType? {
    switch configuration.saveType {
    case "float32"?: .float32
    case "bfloat16"?: .bfloat16
    default: nil
    }
  }
}

extension Error {
  /// Whether a file did not fit on its disk, here or at a stage.
  var isDiskFull: Bool {
    if let error = self as? CheckpointError {
      switch error {
      case .diskFull, .noRoom: return true
      default: return false
      }
    }
    return (self as? RPCError)?.code == .resourceExhausted
  }
}
