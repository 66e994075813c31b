import Checkpoint
import Kernels
import Tensors
import Training

/// The projector, when it trains. See ``ProjectorStage``.
public final class ProjectorTrainer: TrainingSlice {
  private struct Saved {
    let microBatch: MicroBatch
    let step: UInt64
    var activations: ProjectorStage.Activations?
  }

  /// The projector as it serves, over the same weights.
  public let stage: ProjectorStage
  public let parameters: [Parameter]
  public let tensors: [HeldTensor]
  public let needsInputGradient: Bool
  public var defersWeightGradients = true

  private let device: any TrainingDevice
  private let options: TrainingOptions
  private var memory: SliceMemory<Saved>

  /// - Parameter pool: Memory shared with slices that work in turn with this one.
  /// - Throws: `CheckpointError`, and what the state throws.
  public init(
    _ configuration: ModelConfiguration, weights: TrainingWeights, device: any TrainingDevice,
    options: TrainingOptions, pool: TensorPool? = nil
  ) throws {
    let parts = TrainingParts(configuration: configuration, options: options)
    var taken = ProjectorStage.weights(
      weights.model, training: parts.projectorWeights(weights))
    stage = try ProjectorStage(configuration, weights: &taken, device: device)
    parameters = taken.parameters
    tensors = taken.held
    needsInputGradient = parts.trainsBeforeProjector
    self.device = device
    memory = SliceMemory(sharing: pool)
    self.options = options
  }

  public var trainingBytes: Int { parameters.reduce(0) { $0 + $1.byteCount } }
  public var savedBytes: Int { memory.bytes }
  public var hasBackward: Bool { needsInputGradient || !parameters.isEmpty }
  public var takesPart: Bool { options.objectives.reachesImageRows }

  public func inputShape(of microBatch: MicroBatch) -> [Int]? {
    microBatch.tiles > 0 ? [microBatch.tiles] + stage.visionShape : nil
  }

  public func outputShape(of microBatch: MicroBatch) -> [Int]? {
    microBatch.tiles > 0 ? [microBatch.tiles * stage.tokenCount, stage.width] : nil
  }

  public func forward(
    _ index: Int, _ microBatch: MicroBatch, step: UInt64, input: Tensor?, into output: Tensor?
  ) throws {
    var saved = Saved(microBatch: microBatch, step: step)
    defer { memory.keep(saved, of: index) }
    guard let shape = inputShape(of: microBatch), let rowsShape = outputShape(of: microBatch)
    else { return }
    let input = try Slices.require(input, shape, "input of the projector")
    let rows = try Slices.require(output, rowsShape, "output of the projector")
    var activations = stage.activations(
      tiles: microBatch.tiles, sharing: false, make: memory.pool.tensor)
    try stage.forward(input, activations, into: rows)
    guard hasBackward else { return }
    if options.recompute == .selective { activations.thin() }
    if options.recompute == .full { activations.thinToInput() }
    saved.activations = activations
  }

  public func backward(
    _ index: Int, gradient: Tensor?, into inputGradient: Tensor?
  ) throws -> (sum: Double, rows: Int)? {
    let saved = try memory.take(index)
    guard var activations = saved.activations,
      let shape = outputShape(of: saved.microBatch), let inputs = inputShape(of: saved.microBatch)
    else { return nil }
    let gradient = try Slices.require(gradient, shape, "gradient of the projector's output")
    if needsInputGradient {
      try Slices.require(inputGradient, inputs, "gradient of the projector's input")
    }
    let pass = TrainingPass(
      device: device, pool: memory.pool, seed: options.seed, step: saved.step,
      groups: saved.microBatch.pictureGroups(rowsEach: stage.tokenCount),
      defers: defersWeightGradients)
    try stage.restore(&activations, make: pass.tensor)
    try stage.backward(
      dRows: gradient, activations, into: needsInputGradient ? inputGradient : nil, pass)
    memory.leave(pass, of: index)
    return nil
  }

  public func accumulate(_ index: Int) throws { try memory.accumulate(index, on: device) }

  public func loss(_ index: Int) throws -> (sum: Double, rows: Int)? {
    _ = try memory.take(index)
    return nil
  }

  public func discard() { memory.discard() }
}
