import Checkpoint
import Kernels
import Tensors
import Training

/// The whole model as slices that train in one process, one micro-batch after another.
///
/// What a mesh of processes computes has to be this, bit for bit.
public final class ModelTrainer {
  public struct StepResult: Sendable {
    /// Of each micro-batch: the sum of its labelled rows' losses, and their number.
    public var losses: [(sum: Double, rows: Int)]
    /// What came of other parts of the loss.
    public var objectives: [ObjectiveLoss] = []
    /// Σ gradient² of each parameter, in the order of ``ModelTrainer/parameters``.
    public var sumsOfSquares: [(name: String, sum: Double)]

    /// √ Σ gradient² over all parameters, summed in their order.
    public var gradientNorm: Double {
      sumsOfSquares.reduce(0) { $0 + $1.sum }.squareRoot()
    }
  }

  public let configuration: ModelConfiguration
  public let vision: [VisionTrainer]
  public let projector: ProjectorTrainer
  public let language: [LanguageTrainer]
  public let optimizer: Optimizer

  /// - Parameters:
  ///   - visionLayers, languageLayers: The layers of each slice, in order, which together are
  ///     all layers of the part; nil: one slice.
  ///   - imageToken: The id of `<IMG_CONTEXT>`.
  /// - Throws: ``InternVLError``, `CheckpointError`, and what the state throws.
  public init(
    _ configuration: ModelConfiguration, weights: TrainingWeights,
    device: any TrainingDevice, options: TrainingOptions, visionLayers: [Range<Int>]? = nil,
    languageLayers: [Range<Int>]? = nil, cacheTokens: Int = 0, imageToken: Int32?
  ) throws {
    self.configuration = configuration
    optimizer = Optimizer(options, device: device)
    let pool = TensorPool()
    vision = try InternVLModel.split(visionLayers, configuration.usedVisionLayers, "vision encoder")
      .map {
        try VisionTrainer(
          configuration, layers: $0, weights: weights, device: device, options: options, pool: pool)
      }
    projector = try ProjectorTrainer(
      configuration, weights: weights, device: device, options: options, pool: pool)
    language = try InternVLModel.split(
      languageLayers, configuration.language.layerCount, "language model"
    ).map {
      try LanguageTrainer(
        configuration, layers: $0, weights: weights, device: device, options: options,
        cacheTokens: cacheTokens, imageToken: imageToken, pool: pool)
    }
    for slice in slices { slice.defersWeightGradients = false }
  }

  /// All slices, in the order of the forward pass.
  public var slices: [any TrainingSlice] {
    vision as [any TrainingSlice] + [projector] + language
  }

  /// Those that take part.
  private var working: [any TrainingSlice] { slices.filter(\.takesPart) }

  /// What came of other parts of the loss than the answers, in the last backward pass of a
  /// micro-batch; once.
  public func takeObjectives(_ index: Int) -> [ObjectiveLoss] {
    slices.flatMap { $0.takeObjectives(index) }
  }

  /// What is trained, in the order of the release.
  public var parameters: [Parameter] { slices.flatMap(\.parameters) }
  /// Everything that belongs into a checkpoint, in the order of the release.
  public var tensors: [HeldTensor] { slices.flatMap(\.tensors) }
  public var trainingBytes: Int { slices.reduce(0) { $0 + $1.trainingBytes } }
  public var savedBytes: Int { slices.reduce(0) { $0 + $1.savedBytes } }

  /// The model as it serves, over the same weights.
  public var model: InternVLModel {
    InternVLModel(
      configuration, vision: vision.map(\.stage), projector: projector.stage,
      language: language.map(\.stage))
  }

  /// Forward and backward of every micro-batch, whose gradients are added to what is there.
  ///
  /// - Parameters:
  ///   - number: The step's, by which drop path and dropout draw.
  ///   - microBatches: Each with the pixels [tiles, 3, H, W] of its pictures.
  /// - Throws: ``InternVLError``, `KernelError`, `TensorError`; micro-batches are forgotten then.
  public func step(
    _ number: UInt64, microBatches: [(MicroBatch, pixels: Tensor?)]
  ) throws -> StepResult {
    do {
      var losses: [(sum: Double, rows: Int)] = []
      var objectives: [ObjectiveLoss] = []
      for (index, (microBatch, pixels)) in microBatches.enumerated() {
        try forward(index, microBatch, pixels, step: number)
        if let loss = try backward(index, microBatch) { losses.append(loss) }
        objectives += takeObjectives(index)
      }
      let parameters = self.parameters
      let sums = try optimizer.sumsOfSquares(parameters)
      return StepResult(
        losses: losses, objectives: objectives,
        sumsOfSquares: zip(parameters, sums).map { ($0.name, $1) })
    } catch {
      for slice in slices { slice.discard() }
      throw error
    }
  }

  /// The losses alone.
  public func losses(
    _ number: UInt64, microBatches: [(MicroBatch, pixels: Tensor?)]
  ) throws -> [(sum: Double, rows: Int)] {
    defer { for slice in slices { slice.discard() } }
    return try microBatches.compactMap { microBatch, pixels in
      try forward(0, microBatch, pixels, step: number)
      return try working.compactMap { try $0.loss(0) }.last
    }
  }

  /// Ends a step: updates all parameters, and clears their gradients.
  ///
  /// - Parameter updateNumber: Updates made, this one included.
  public func update(
    learningRate: Double, gradientScale: Double = 1, updateNumber: Int
  ) throws {
    try optimizer.update(
      parameters, learningRate: learningRate, gradientScale: gradientScale, number: updateNumber)
    try optimizer.clearGradients(parameters)
  }

  /// - Parameter index: The micro-batch's in the step.
  public func forward(
    _ index: Int, _ microBatch: MicroBatch, _ pixels: Tensor?, step: UInt64
  ) throws {
    var input = pixels
    for slice in working {
      let output = slice.outputShape(of: microBatch).map {
        Tensor(uninitialized: .float32, $0)
      }
      try slice.forward(index, microBatch, step: step, input: input, into: output)
      input = output
    }
  }

  /// - Returns: the micro-batch's loss.
  @discardableResult
  public func backward(
    _ index: Int, _ microBatch: MicroBatch
  ) throws -> (sum: Double, rows: Int)? {
    var gradient: Tensor?
    var loss: (sum: Double, rows: Int)?
    for slice in working.reversed() {
      guard slice.hasBackward else {
        _ = try slice.loss(index)
        continue
      }
      let input = slice.needsInputGradient ? slice.inputShape(of: microBatch) : nil
      let inputGradient = input.map { Tensor(uninitialized: .float32, $0) }
      loss = try slice.backward(index, gradient: gradient, into: inputGradient) ?? loss
      try slice.accumulate(index)
      gradient = inputGradient
    }
    return loss
  }
}
