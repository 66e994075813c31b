import Checkpoint
import InternVL
import Kernels
import Synchronization
import Tensors
import Text
import Threads
import Training
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A whole model that trains in this process, one micro-batch after another.
public final class InProcessStages: TrainingStages {
  /// What belongs to the thread.
  private final class Model: @unchecked Sendable {
    var trainer: ModelTrainer?
    var updates: UInt64 = 0
  }

  private let folder: String
  private let device: String
  private let threads: Int
  private let thread = DedicatedThread(name: "train")
  private let writer = DedicatedThread(name: "save")
  private let model = Model()

  /// - Parameter folder: the model to start from.
  public init(model folder: String, device: String = "cpu", threads: Int) {
    self.folder = folder
    self.device = device
    self.threads = threads
  }

  public func placement() -> StagePlacement {
    StagePlacement(vision: [], projector: .init(name: "process"), language: [])
  }

  public func ready(within duration: Duration) {}

  public func prepare(_ preparation: TrainingPreparation) async throws -> PreparedStages {
    try await thread.run { [self] _ in
      // Two of them may not fit.
      model.trainer = nil
      let configuration = try ModelConfiguration.load(folder: folder)
      let state = try preparation.checkpoint.map { try TrainingStateReader(folder: $0) }
      let tokenizer = try Tokenizer(folder: folder)
      let trainer = try ModelTrainer(
        configuration,
        weights: TrainingWeights(
          model: CheckpointReader(folder: folder), state: state),
        device: Devices.makeTraining(device, threads: threads), options: preparation.options,
        imageToken: tokenizer.id(of: ImagePlaceholders.context).map { Int32($0) })
      model.trainer = trainer
      model.updates = UInt64(state?.updates ?? 0)
      return PreparedStages(
        held: [InProcessStages.held(trainer)], trainingBytes: [trainer.trainingBytes],
        updates: model.updates)
    }
  }

  private static func held(_ trainer: ModelTrainer) -> [CheckpointLayout.Held] {
    let trained = Set(trainer.parameters.map(\.name))
    let held = trainer.tensors.map {
      CheckpointLayout.Held(
        name: $0.name, shape: $0.tensor.shape, storedType: $0.storedType,
        isTrained: trained.contains($0.name))
    }
    let names = Set(held.map(\.name))
    return held
      + trainer.parameters.filter { !names.contains($0.name) }.map {
        .init(
          name: $0.name, shape: $0.value.shape, storedType: $0.storedType, isTrained: true)
      }
  }

  public func step(_ work: StepWork) async throws -> StepOutcome {
    var outcome = StepOutcome(
      losses: [], squares: [:], timings: [[]], peakSavedBytes: [0], peakSavedMicroBatches: [1])
    for (index, microBatch) in work.microBatches.enumerated() {
      // Waited for here, where the thread does not have to.
      let pixels = microBatch.tiles > 0 ? try await work.pixels(index) : nil
      outcome = try await run { [outcome] trainer, _ in
        var outcome = outcome
        if work.forwardOnly {
          outcome.losses += try trainer.losses(work.step, microBatches: [(microBatch, pixels)])
        } else {
          try InProcessStages.pass(index, microBatch, pixels, work.step, trainer, &outcome)
        }
        return outcome
      }
    }
    guard !work.forwardOnly else { return outcome }
    return try await run { [outcome] trainer, _ in
      var outcome = outcome
      let parameters = trainer.parameters
      for (parameter, sum) in zip(parameters, try trainer.optimizer.sumsOfSquares(parameters)) {
        outcome.squares[parameter.name] = sum
      }
      return outcome
    }
  }

  /// One micro-batch forward and backward.
  private static func pass(
    _ index: Int, _ microBatch: MicroBatch, _ pixels: Tensor?, _ step: UInt64,
    _ trainer: ModelTrainer, _ outcome: inout StepOutcome
  ) throws {
    do {
      var start = Monotonic.microseconds
      try trainer.forward(index, microBatch, pixels, step: step)
      outcome.add(Action(.forward, microBatch: index), since: start)
      outcome.peakSavedBytes[0] = max(outcome.peakSavedBytes[0], trainer.savedBytes)
      start = Monotonic.microseconds
      outcome.losses.append(try trainer.backward(index, microBatch) ?? (0, 0))
      outcome.objectives += trainer.takeObjectives(index)
      outcome.add(Action(.backward, microBatch: index), since: start)
    } catch {
      for slice in trainer.slices { slice.discard() }
      throw error
    }
  }

  public func update(_ update: ParameterUpdate) async throws {
    try await run { [model] trainer, _ in
      if update.skips {
        try trainer.optimizer.clearGradients(trainer.parameters)
      } else {
        try trainer.update(
          learningRate: update.learningRate, gradientScale: update.gradientScale,
          updateNumber: Int(model.updates) + 1)
        model.updates += 1
      }
    }
  }

  public func abandon(step: UInt64) async {
    try? await thread.run { [model] _ in
      // A run that did not begin has nothing to forget.
      guard let trainer = model.trainer else { return }
      for slice in trainer.slices { slice.discard() }
      try trainer.optimizer.clearGradients(trainer.parameters)
    }
  }

  public func save(_ work: SaveWork) async throws -> Task<Int, any Error> {
    let snapshot = try await run { trainer, _ in Snapshot(trainer, work) }
    return Task { [writer] in try await writer.run { _ in try snapshot.write() } }
  }

  public func fetch(_ names: [String], _ what: FetchedTensor) async throws -> [String: Tensor] {
    try await run { trainer, _ in
      let wanted = Set(names)
      var found: [String: Tensor] = [:]
      for parameter in trainer.parameters where wanted.contains(parameter.name) {
        found[parameter.name] = (what == .value ? parameter.value : parameter.gradient).copy()
      }
      return found
    }
  }

  private func run<Result: Sendable>(
    _ body: @escaping @Sendable (ModelTrainer, CancellationFlag) throws -> Result
  ) async throws -> Result {
    try await thread.run { [model] flag in
      guard let trainer = model.trainer else {
        preconditionFailure("a model that was not prepared does not train")
      }
      return try body(trainer, flag)
    }
  }
}

/// What a checkpoint will hold, out of the way of later updates.
private struct Snapshot: @unchecked Sendable {
  private let work: SaveWork
  private var model: [String: ShardFile.Item] = [:]
  private var states: [String: ShardFile.State] = [:]

  init(_ trainer: ModelTrainer, _ work: SaveWork) {
    self.work = work
    var values: [String: Tensor] = [:]
    for parameter in trainer.parameters {
      let value = parameter.value.copy()
      values[parameter.name] = value
      states[parameter.name] = (
        parameter.name, value, parameter.firstMoment.copy(), parameter.secondMoment.copy()
      )
    }
    for held in trainer.tensors {
      let merged = work.mergesLoRA ? held.merged { values[$0] ?? $1.copy() } : nil
      model[held.name] = (
        held.name, merged ?? (values[held.name] ?? held.tensor) as any TensorSource,
        work.scalarType ?? held.storedType
      )
    }
  }

  /// - Returns: bytes written.
  func write() throws -> Int {
    var bytes = 0
    for share in work.layout.shares {
      for file in share.model {
        bytes += try ShardFile.write(
          file.names.compactMap { model[$0] }, to: "\(work.folder)/\(file.path)")
      }
      guard let file = share.optimizer else { continue }
      let names = Set(file.names)
      let own = states.values.filter { names.contains("exp_avg.\($0.name)") }
        .sorted { $0.name < $1.name }
        .map { state in
          var state = state
          if !names.contains("master.\(state.name)") { state.value = nil }
          return state
        }
      bytes += try ShardFile.write(own, to: "\(work.folder)/\(file.path)")
    }
    return bytes
  }
}

extension Tensor {
  /// The same on the heap.
  func copy() -> Tensor {
    let copy = Tensor(uninitialized: scalarType, shape)
    copy.copyElements(from: self)
    return copy
  }
}

extension StepOutcome {
  fileprivate mutating func add(_ action: Action, since start: Int) {
    timings[0].append(
      TimedAction(action: action, start: start, duration: Monotonic.microseconds - start))
  }
}

/// CLOCK_MONOTONIC, which all processes of a machine share.
enum Monotonic {
  static var microseconds: Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1_000_000 + time.tv_nsec / 1000
  }
}
