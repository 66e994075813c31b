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
    /// Goes to memory, not to a disk.
    let isVolatile: Bool
    let task: Task<CheckpointFolder, any Error>
    /// The stages' part.
    let writing: Task<Int, any Error>
    private let flag = Atomic<Bool>(false)

    init(
      step: Int, isVolatile: Bool, task: Task<CheckpointFolder, any Error>,
      writing: Task<Int, any Error>
    ) {
      self.step = step
      self.isVolatile = isVolatile
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
    // Two at a time would need the room of two snapshots.
    try await finishSaving()
    savesAgain = false
    try await beginSaving(in: configuration.output, isVolatile: false)
  }

  /// The last one; the run is not over before it is on disk.
  func saveAtEnd() async throws {
    try await finishSaving()
    // After no step there is nothing that the model's folder does not have.
    if step == 0 || lastCheckpoint?.step == step { return }
    let deadline = Deadline.after(limits.recoveryTime)
    while true {
      savesAgain = false
      try await beginSaving(in: configuration.output, isVolatile: false)
      try await finishSaving()
      guard savesAgain, !deadline.isPassed else { return }
      // A stage is still at a checkpoint that was given up.
      try await Task.sleep(for: .milliseconds(100))
    }
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
      saving = Saving(step: step, isVolatile: isVolatile, task: task, writing: writing)
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
      // Some stage was at its next update already, or still at a checkpoint that was given up.
      let code = (error as? RPCError)?.code
      if code == .outOfRange && saving.step < step || code == .aborted {
        // Another copy in memory is made after the next step anyway.
        if !saving.isVolatile { savesAgain = true }
        return
      }
      try await passDiskFull(error, step: saving.step)
    }
  }

  /// - Throws: `error`, unless it is a full disk and the run is to go on with one.
  private func passDiskFull(_ error: any Error, step: Int) async throws {
    let reason = try passable(error, step: step)
    await events(
      .warning("the checkpoint of step \(step) has no room, and the run goes on: \(reason)"))
  }

  /// As ``passDiskFull(_:step:)`` for the log and the trace, of which it is said once that lines
  /// are missing.
  func passFullLog(_ error: any Error, step: Int) async throws {
    let reason = try passable(error, step: step)
    if logIsFull { return }
    logIsFull = true
    await events(
      .warning("the log of step \(step) has no room, and the run goes on without: \(reason)"))
  }

  /// - Returns: what found no room.
  private func passable(_ error: any Error, step: Int) throws -> String {
    guard error.isDiskFull else { throw error }
    guard configuration.onDiskFull == .goOn else {
      throw TrainingRunError.diskFull(step: step, reason: "\(error)")
    }
    return "\(error)"
  }

  /// Knows of a checkpoint that was written.
  private func take(_ checkpoint: CheckpointFolder) {
    guard checkpoint.path.hasPrefix(configuration.output) else { return }
    lastCheckpoint = checkpoint
    passedOver.remove(checkpoint.step)
    // Memory has nothing that the disk does not have.
    for replica in allReplicas where replica.step <= checkpoint.step {
      removeFolder(replica.path)
    }
  }

  private var allReplicas: [CheckpointFolder] {
    replicas.map { CheckpointFolder.all(in: $0) } ?? []
  }

  /// At a bad end: what is in memory alone stays there for those who go on with the run.
  func nameReplicas() async {
    guard let replicas else { return }
    guard let replica = allReplicas.last, replica.step > lastCheckpoint?.step ?? 0 else {
      return removeFolder(replicas)
    }
    await events(
      .warning(
        "the state after step \(replica.step) is in memory alone, in \(replicas): --resume goes on "
          + "from there; remove the folder if nobody will"))
  }

  /// Waits for the checkpoint that is being written: what the stages have copied they can write,
  /// unless it is one of them that is gone.
  private func endSaving() async {
    guard let saving else { return }
    self.saving = nil
    let patience = Task { [limits] in
      try await Task.sleep(for: limits.savePatience)
      saving.cancel()
    }
    defer { patience.cancel() }
    let saved = await withTaskCancellationHandler {
      try? await saving.task.value
    } onCancel: {
      saving.cancel()
    }
    if let saved { take(saved) }
  }

  /// Keeps the steps that were done from being lost with the one that cannot be.
  func keepWhatIsDone(after error: any Error) async {
    switch error as? TrainingRunError {
    case .noProgress, .notRecovered, .diskFull: return
    default: break
    }
    guard layout != nil, !isUpdating, !error.isStageLoss, !Task.isCancelled else { return }
    await stages.abandon(step: UInt64(step + 1))
    do {
      try await saveAtEnd()
    } catch {
      logger.warning("saving at a run's bad end", metadata: ["error": "\(error)"])
    }
  }

  // MARK: Going back

  /// A stage was lost: waits until it is back, and goes back with everybody to the last
  /// checkpoint.
  ///
  /// - Throws: ``TrainingRunError`` `noProgress`, `notRecovered`; what cannot be mended.
  func recover(from error: any Error) async throws {
    let last = (error as? RPCError)?.message ?? "\(error)"
    let lostStep = step + 1
    recoveries += 1
    guard recoveries <= limits.recoveries else {
      throw TrainingRunError.noProgress(step: lostStep, recoveries: recoveries - 1, last: last)
    }
    await events(.lost(step: lostStep, reason: last))
    await stages.abandon(step: UInt64(lostStep))
    await endSaving()
    try await bringBack(step: lostStep)
    await events(
      .recovered(step: step, from: restoredFrom?.path ?? configuration.model))
  }

  /// Waits until all stages are there, and puts them to the newest checkpoint; as often as one of
  /// them is lost meanwhile.
  ///
  /// - Parameter step: the one that is to come, for errors.
  /// - Throws: ``TrainingRunError/notRecovered(step:seconds:last:)``; what cannot be mended.
  func bringBack(step: Int) async throws {
    let deadline = Deadline.after(limits.recoveryTime)
    while true {
      do {
        try await stages.ready(within: deadline.remaining)
        try await restore()
        isUpdating = false
        return
      } catch {
        try Task.checkCancellation()
        guard error.isStageLoss else { throw error }
        guard !deadline.isPassed else {
          throw TrainingRunError.notRecovered(
            step: step, seconds: Int(limits.recoveryTime.components.seconds),
            last: (error as? RPCError)?.message ?? "\(error)")
        }
        // A stage may look alive for a moment after its end.
        try await Task.sleep(for: .milliseconds(100))
      }
    }
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
    var preparation = TrainingPreparation(options: options, checkpoint: checkpoint?.path)
    for folder in [configuration.output, replicas].compactMap({ $0 }) {
      if let mark = try RunFolder.makeMark(in: folder) { preparation.sharedFiles.append(mark) }
    }
    defer { for mark in preparation.sharedFiles { RunFolder.removeMark(mark) } }
    let prepared = try await stages.prepare(preparation)
    trainingBytes = prepared.trainingBytes
    notes = []
    if checkpoint == nil { try await tellOfHeads() }
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
    do {
      try folder.rewind(to: state.globalStep)
    } catch {
      try await passFullLog(error, step: state.globalStep)
    }
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
    if case .diskFull? = self as? TrainingError { return true }
    return self is NoRoom
  }
}
