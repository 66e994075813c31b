import Checkpoint
import Kernels
import Tensors
import Training

/// A slice of the vision encoder that trains. See ``VisionStage``.
///
/// Legend: n tiles, P patches of a tile, R = 1 + P, C channels.
public final class VisionTrainer: TrainingSlice {
  private struct Saved {
    let microBatch: MicroBatch
    let step: UInt64
    /// [n, 3, H, W], where the embeddings are trained.
    var pixels: Tensor?
    /// Of all layers, unless there is no backward pass.
    var layers: [VisionActivations] = []
    /// The same with full recomputation: their inputs [n·R, C], and what their second branches
    /// give, for which a third of a layer's products would have to be computed again.
    var inputs: [Tensor] = []
    var branches: [Tensor] = []
    /// What the last layer gave [n·R, C], where patches are classified.
    var output: Tensor?
  }

  /// The slice as it serves, over the same weights.
  public let stage: VisionStage
  public let parameters: [Parameter]
  public let tensors: [HeldTensor]
  public let needsInputGradient: Bool
  public var defersWeightGradients = true

  private let configuration: ModelConfiguration
  private let device: any TrainingDevice
  private let options: TrainingOptions
  private let dropPath: DropPath
  /// At the end of the encoder, where patches are classified.
  private let heads: PatchHeads?
  private var memory: SliceMemory<Saved>
  private var objectives: [Int: [ObjectiveLoss]] = [:]

  /// - Parameter pool: Memory shared with slices that work in turn with this one.
  /// - Throws: ``InternVLError``, `CheckpointError`, and what the state throws.
  public init(
    _ configuration: ModelConfiguration, layers: Range<Int>, weights: TrainingWeights,
    device: any TrainingDevice, options: TrainingOptions, pool: TensorPool? = nil
  ) throws {
    let parts = TrainingParts(configuration: configuration, options: options)
    var taken = StageWeights(
      weights.model, part: "vision", layers: layers, training: parts.visionWeights(weights))
    stage = try VisionStage(configuration, layers: layers, weights: &taken, device: device)
    heads =
      stage.isLast && !options.objectives.groups.isEmpty
      ? try PatchHeads(
        options.objectives.groups, shape: stage.hiddenShape, weights: weights, seed: options.seed)
      : nil
    parameters = taken.parameters + (heads?.parameters ?? [])
    tensors =
      taken.held
      + (heads?.parameters ?? []).map {
        HeldTensor($0.name, $0.value, storedType: $0.storedType, isAdapter: true)
      }
    needsInputGradient = parts.trains(beforeVision: layers.lowerBound)
    self.configuration = configuration
    self.device = device
    memory = SliceMemory(sharing: pool)
    self.options = options
    dropPath = DropPath(
      rate: options.dropPathRate, layerCount: configuration.vision.layerCount,
      seed: options.seed)
  }

  public var trainingBytes: Int { parameters.reduce(0) { $0 + $1.byteCount } }
  public var savedBytes: Int { memory.bytes }
  public var hasBackward: Bool { needsInputGradient || !parameters.isEmpty }

  public func inputShape(of microBatch: MicroBatch) -> [Int]? {
    guard microBatch.tiles > 0 else { return nil }
    let side = configuration.imageSize
    return [microBatch.tiles] + (stage.isFirst ? [3, side, side] : stage.hiddenShape)
  }

  public func outputShape(of microBatch: MicroBatch) -> [Int]? {
    handsOn && microBatch.tiles > 0 ? [microBatch.tiles] + stage.hiddenShape : nil
  }

  /// Whether anything behind this slice takes part.
  private var handsOn: Bool { !stage.isLast || options.objectives.reachesImageRows }

  public func forward(
    _ index: Int, _ microBatch: MicroBatch, step: UInt64, input: Tensor?, into output: Tensor?
  ) throws {
    var saved = Saved(microBatch: microBatch, step: step)
    defer { memory.keep(saved, of: index) }
    guard let shape = inputShape(of: microBatch) else { return }
    let hiddenShape = [microBatch.tiles] + stage.hiddenShape
    let input = try Slices.require(input, shape, "input of the vision layers")
    let hidden =
      handsOn
      ? try Slices.require(output, hiddenShape, "output of the vision layers")
      : memory.pool.tensor(hiddenShape)
    if stage.isFirst {
      try stage.embed(input, into: hidden)
      if stage.embedding?.isTrained == true {
        let pixels = memory.pool.tensor(input.shape)
        pixels.copyElements(from: input)
        saved.pixels = pixels
      }
    } else {
      hidden.copyElements(from: input)
    }
    let pass = self.pass(microBatch, step)
    let shapes = stage.shape(tiles: microBatch.tiles)
    let rows = hidden.reshaped([shapes.rows, shapes.width])
    var shared =
      hasBackward && options.recompute != .full
      ? nil : VisionActivations(sharing: shapes, make: pass.tensor)
    for (place, block) in stage.blocks.enumerated() {
      let factors = factors(place, microBatch, step)
      if shared != nil, hasBackward {
        let branch = pass.tensor(rows.shape)
        saved.inputs.append(pass.copy(rows))
        saved.branches.append(branch)
        shared?.branch2 = branch
      }
      if let shared {
        try block.forward(rows, shared, on: device, pass, dropPath: factors)
      } else {
        var kept = VisionActivations(keeping: shapes, make: pass.tensor)
        try block.forward(rows, kept, on: device, pass, dropPath: factors)
        if options.recompute == .selective { kept.thin() }
        saved.layers.append(kept)
      }
    }
    if heads != nil, !microBatch.patchTargets.isEmpty {
      saved.output = handsOn ? pass.copy(rows) : rows
    }
  }

  public func backward(
    _ index: Int, gradient: Tensor?, into inputGradient: Tensor?
  ) throws -> (sum: Double, rows: Int)? {
    var saved = try memory.take(index)
    guard hasBackward, saved.microBatch.tiles > 0 else { return nil }
    let tiles = saved.microBatch.tiles
    let hiddenShape = [tiles] + stage.hiddenShape
    let pass = self.pass(saved.microBatch, saved.step)
    let shapes = stage.shape(tiles: tiles)
    let dX: Tensor
    if handsOn {
      let gradient = try Slices.require(
        gradient, hiddenShape, "gradient of the vision layers' output")
      dX = pass.copy(gradient.reshaped([shapes.rows, shapes.width]))
    } else {
      dX = pass.tensor([shapes.rows, shapes.width])
      try device.clear(dX)
    }
    try classify(index, &saved, dHidden: dX, pass)
    for (place, block) in stage.blocks.enumerated().reversed() {
      let factors = factors(place, saved.microBatch, saved.step)
      let activations = try activations(block, &saved, shapes, pass, factors)
      try block.backward(
        dX: dX, activations, pass, dropPath: factors,
        wantsInput: place > 0 || needsInputGradient || saved.pixels != nil)
    }
    if needsInputGradient {
      try Slices.require(
        inputGradient, hiddenShape, "gradient of the vision layers' input"
      ).copyElements(from: dX.reshaped(hiddenShape))
    }
    if let pixels = saved.pixels {
      try stage.embedding?.backward(dHidden: dX.reshaped(hiddenShape), pixels: pixels, pass)
    }
    memory.leave(pass, of: index)
    return nil
  }

  public func accumulate(_ index: Int) throws { try memory.accumulate(index, on: device) }

  public func loss(_ index: Int) throws -> (sum: Double, rows: Int)? {
    var saved = try memory.take(index)
    try classify(index, &saved, dHidden: nil, pass(saved.microBatch, saved.step))
    return nil
  }

  /// The losses of patches; their gradients, too, where there is a place for them.
  private func classify(
    _ index: Int, _ saved: inout Saved, dHidden: Tensor?, _ pass: TrainingPass
  ) throws {
    guard let heads, let output = saved.output else { return }
    saved.output = nil
    objectives[index] = try heads.losses(
      index, of: saved.microBatch.patchTargets, hidden: output, dHidden: dHidden, pass)
  }

  public func takeObjectives(_ index: Int) -> [ObjectiveLoss] {
    objectives.removeValue(forKey: index) ?? []
  }

  public func discard() {
    memory.discard()
    objectives = [:]
  }

  private func pass(_ microBatch: MicroBatch, _ step: UInt64) -> TrainingPass {
    TrainingPass(
      device: device, pool: memory.pool, seed: options.seed, step: step,
      groups: microBatch.pictureGroups(rowsEach: stage.hiddenShape[0]),
      defers: defersWeightGradients)
  }

  private func factors(
    _ place: Int, _ microBatch: MicroBatch, _ step: UInt64
  ) -> BranchFactors? {
    dropPath.factors(
      layer: stage.layers.lowerBound + place, step: step, tiles: microBatch.tilePlaces)
  }

  /// All that the backward pass of the last layer left reads, computed again as far as it was
  /// not kept. It is kept no longer.
  private func activations(
    _ block: VisionLayer, _ saved: inout Saved, _ shape: VisionActivations.Shape,
    _ pass: TrainingPass, _ factors: BranchFactors?
  ) throws -> VisionActivations {
    switch options.recompute {
    case .none: return saved.layers.removeLast()
    case .selective:
      var activations = saved.layers.removeLast()
      activations.restore(shape, make: pass.tensor)
      try block.recompute(activations, on: device)
      return activations
    case .full:
      let activations = VisionActivations(
        keeping: shape, branch2: saved.branches.removeLast(), make: pass.tensor)
      try block.forward(
        saved.inputs.removeLast(), activations, on: device, pass, dropPath: factors,
        givesOutput: false)
      return activations
    }
  }
}
