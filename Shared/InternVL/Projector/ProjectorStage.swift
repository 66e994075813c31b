import Checkpoint
import Kernels
import Tensors

/// What turns the vision encoder's patches into rows beside word embeddings: pixel shuffle, and
/// `mlp1` of the reference's modeling_internvl_chat.py (norm, linear, GELU, linear).
///
/// Legend: P patches of a tile, C vision channels, f patches merged on a side, D model width.
public struct ProjectorStage: Sendable {
  /// Image tokens of a tile.
  public let tokenCount: Int
  /// D.
  public let width: Int
  /// Bytes of weights held, mapped from the checkpoint.
  public let weightBytes: Int
  /// Most bytes held besides weights, by one forward call.
  public let workingBytes: Int

  /// PyTorch's default, which the reference leaves as it is.
  private static let epsilon: Float = 1e-5

  private let device: any Device
  private let visionShape: [Int]
  private let merge: PatchMerge
  private let normWeight: Tensor
  private let normBias: Tensor
  private let weight1: Tensor
  private let bias1: Tensor
  private let weight2: Tensor
  private let bias2: Tensor

  /// - Throws: `CheckpointError` for a tensor that is missing or has another shape.
  public init(
    _ configuration: ModelConfiguration, checkpoint: CheckpointReader, device: any Device
  ) throws {
    let grid = configuration.gridSize
    let channels = configuration.vision.hiddenSize
    let width = configuration.language.hiddenSize
    let names = WeightNames.Projector(configuration)
    var weights = StageWeights(checkpoint, purpose: "this stage is the projector")
    merge = PatchMerge(
      grid: grid, factor: configuration.mergedPatches, channels: channels,
      order: configuration.pixelShuffle)
    self.device = device
    self.width = width
    tokenCount = merge.tokenCount
    visionShape = [1 + grid * grid, channels]
    normWeight = try weights.take(names.normWeight)
    normBias = try weights.take(names.normBias)
    weight1 = try weights.take(names.fc1Weight)
    bias1 = try weights.take(names.fc1Bias)
    weight2 = try weights.take(names.fc2Weight)
    bias2 = try weights.take(names.fc2Bias)
    weightBytes = weights.byteCount
    workingBytes = tokenCount * (merge.tokenWidth + width) * ScalarType.float32.byteCount
  }

  /// vision [1 + P, C] of one tile, with the class token, → rows [tokens, D].
  ///
  /// - Throws: `TensorError` for a wrong shape.
  public func forward(_ vision: Tensor, into rows: Tensor) throws {
    try vision.require(shape: visionShape, "vision output of a tile")
    try vision.require(.float32, what: "vision output of a tile")
    try rows.require(shape: [tokenCount, width], "image rows of a tile")
    let merged = Tensor(uninitialized: .float32, [tokenCount, merge.tokenWidth])
    let hidden = Tensor(uninitialized: .float32, [tokenCount, width])
    merge.apply(vision.rows(1..<visionShape[0]), into: merged)
    try device.layerNorm(
      merged, weight: normWeight, bias: normBias, epsilon: ProjectorStage.epsilon, into: merged)
    try device.linear(merged, weight: weight1, bias: bias1, grouping: .together, into: hidden)
    try device.gelu(hidden)
    try device.linear(hidden, weight: weight2, bias: bias2, grouping: .together, into: rows)
  }
}
