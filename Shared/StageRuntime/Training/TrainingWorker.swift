import InternVL
import Kernels
import Messages
import Tensors
import Training
import Transport

/// What a stage trains: its slices of layers, and all that belongs to them.
struct TrainedStage {
  /// By chunk.
  var slices: [any TrainingSlice]
  var optimizer: Optimizer
  /// Updates made so far.
  var updates: Int
  /// Gradients stay after the update, until the next step begins.
  var keepsGradients: Bool

  /// Everything held that belongs into a checkpoint, in the order of the slices, each once.
  var tensors: [HeldTensor] {
    var seen: Set<String> = []
    return slices.flatMap(\.tensors).filter { seen.insert($0.name).inserted }
  }
}

/// The state of a stage that trains. All of it belongs to the computing thread.
final class TrainingWorker: @unchecked Sendable {
  private(set) var stage: TrainedStage?
  private(set) var parameters: [Parameter] = []
  /// Gradients hold something of a step.
  private var hasGradients = false
  /// Places that were run forward and not back.
  private var underway: Set<TrainingPlace> = []
  private var objectives: [ObjectiveLoss] = []

  func adopt(_ stage: TrainedStage?) {
    self.stage?.slices.forEach { $0.discard() }
    self.stage = stage
    var seen: Set<ObjectIdentifier> = []
    parameters = (stage?.slices ?? []).flatMap(\.parameters)
      .filter { seen.insert(ObjectIdentifier($0)).inserted }
    hasGradients = false
    underway = []
  }

  var trainingBytes: Int { stage?.slices.reduce(0) { $0 + $1.trainingBytes } ?? 0 }
  var savedBytes: Int { stage?.slices.reduce(0) { $0 + $1.savedBytes } ?? 0 }
  var microBatchesUnderway: Int { underway.count }

  func prepared() throws -> TrainedStage {
    guard let stage else { throw TrainingSession.notPrepared }
    return stage
  }

  private func slice(_ chunk: Int) throws -> any TrainingSlice { try prepared().slices[chunk] }

  // MARK: A step

  /// - Parameter deferred: the chunks whose weights' gradients are actions of their own.
  func begin(deferred: Set<Int>) throws {
    let stage = try prepared()
    for (chunk, slice) in stage.slices.enumerated() {
      slice.discard()
      slice.defersWeightGradients = deferred.contains(chunk)
    }
    underway = []
    objectives = []
    if hasGradients { try clearGradients() }
  }

  func forward(
    _ place: TrainingPlace, _ fed: TrainingStep.Fed, step: UInt64, input: Tensor?,
    into output: Tensor?, forwardOnly: Bool
  ) throws -> MicroBatchLoss? {
    let slice = try slice(place.chunk)
    try slice.forward(
      place.microBatch, fed.microBatch, step: step, input: input, into: output)
    underway.insert(place)
    return forwardOnly ? try loss(place) : nil
  }

  /// Ends a micro-batch without gradients.
  func loss(_ place: TrainingPlace) throws -> MicroBatchLoss? {
    underway.remove(place)
    let slice = try slice(place.chunk)
    let loss = try slice.loss(place.microBatch)
    objectives += slice.takeObjectives(place.microBatch)
    return MicroBatchLoss(place, loss)
  }

  func backward(
    _ place: TrainingPlace, gradient: Tensor?, into inputGradient: Tensor?
  ) throws -> MicroBatchLoss? {
    hasGradients = true
    let slice = try slice(place.chunk)
    let loss = try slice.backward(
      place.microBatch, gradient: gradient, into: inputGradient)
    objectives += slice.takeObjectives(place.microBatch)
    underway.remove(place)
    return MicroBatchLoss(place, loss)
  }

  func accumulate(_ place: TrainingPlace) throws {
    try slice(place.chunk).accumulate(place.microBatch)
  }

  /// What came of other parts of the loss than the answers in this step; once.
  func takeObjectives() -> [ObjectiveLoss] {
    defer { objectives = [] }
    return objectives
  }

  func norms() throws -> [ParameterNorm] {
    let sums = try prepared().optimizer.sumsOfSquares(parameters)
    return zip(parameters, sums).map { ParameterNorm(name: $0.name, sumOfSquares: $1) }
  }

  // MARK: Its end

  func update(_ request: UpdateRequest) throws {
    let stage = try prepared()
    if !request.skip {
      try stage.optimizer.update(
        parameters, learningRate: request.learningRate, gradientScale: request.gradientScale,
        number: stage.updates + 1)
      self.stage?.updates += 1
    }
    // Kept ones go when the next step begins.
    if request.skip || !stage.keepsGradients { try clearGradients() }
  }

  /// Forgets all micro-batches, and their gradients.
  func abandon() {
    guard let stage else { return }
    for slice in stage.slices { slice.discard() }
    underway = []
    // Clearing memory that is there cannot fail.
    try? clearGradients()
  }

  private func clearGradients() throws {
    try prepared().optimizer.clearGradients(parameters)
    hasGradients = false
  }

  // MARK: State

  /// Copies of tensors, for probes.
  func fetch(_ request: FetchRequest) throws -> [Attachment] {
    guard request.names.count <= TrainingLimits.fetched else {
      throw RPCError(
        .invalidArgument,
        "\(request.names.count) tensors asked for, at most \(TrainingLimits.fetched) travel at a "
          + "time")
    }
    let stage = try prepared()
    return try request.names.map { name in
      let parameter = parameters.first { $0.name == name }
      let tensor: Tensor? =
        switch request.what {
        case "value": parameter?.value ?? stage.tensors.first { $0.name == name }?.tensor
        case "gradient": parameter?.gradient
        case "exp_avg": parameter?.firstMoment
        case "exp_avg_sq": parameter?.secondMoment
        default:
          throw RPCError(
            .invalidArgument,
            "\"\(request.what)\" is none of value, gradient, exp_avg, exp_avg_sq")
        }
      guard let tensor else {
        throw RPCError(.notFound, "this stage has no \(request.what) of \(name)")
      }
      return Attachment(tensor.widened(), name: name)
    }
  }
}

extension MicroBatchLoss {
  init?(_ place: TrainingPlace, _ loss: (sum: Double, rows: Int)?) {
    guard let loss else { return nil }
    self.init(microBatch: place.microBatch, sum: loss.sum, rows: loss.rows)
  }
}
