import Checkpoint
import Kernels
import Tensors

/// What turns pixels into the vision encoder's first hidden states: InternVisionEmbeddings of
/// the reference's modeling_intern_vit.py.
///
/// Legend: P patches, S pixels on a side of one, C channels.
struct VisionEmbedding: Sendable {
  /// Pixels on a side of a tile.
  let imageSize: Int
  let patchSize: Int
  /// The convolution as a product: [C, 3·S·S].
  private let patchWeight: Tensor
  private let patchBias: Tensor
  /// The class token's start [C].
  private let classToken: Tensor
  /// [1 + P, C] in float32, for the grid in use.
  private let positions: Tensor

  /// P
  var patchCount: Int { positions.shape[0] - 1 }
  /// Bytes of one call's patches.
  var scratchBytes: Int { patchCount * patchWeight.shape[1] * ScalarType.float32.byteCount }

  init(
    _ configuration: ModelConfiguration, weights: inout StageWeights
  ) throws {
    let vision = configuration.vision
    let width = vision.hiddenSize
    let names = WeightNames.VisionEmbeddings(configuration)
    imageSize = configuration.imageSize
    patchSize = vision.patchSize
    let kernel: Tensor = try weights.take(names.patchWeight)
    patchWeight = kernel.reshaped([width, kernel.count / width])
    patchBias = try weights.take(names.patchBias)
    let start: Tensor = try weights.take(names.classEmbedding)
    classToken = Tensor(start.floats, [width])
    let table: Tensor = try weights.take(names.positionEmbedding)
    positions = PositionTable.fitted(table, from: vision.gridSize, to: configuration.gridSize)
    weights.count(positions)
  }

  /// pixels [3, H, W] → hidden [1 + P, C]: the class token, then the patches row by row, each
  /// with its position added.
  func forward(_ pixels: Tensor, into hidden: Tensor, on device: any Device) throws {
    let patches = Tensor(uninitialized: .float32, [patchCount, patchWeight.shape[1]])
    try device.patches(pixels, patch: patchSize, into: patches)
    try device.linear(
      patches, weight: patchWeight, bias: patchBias, grouping: .together,
      into: hidden.rows(1..<1 + patchCount))
    hidden[0].copyElements(from: classToken)
    try device.addScaled(positions, scale: nil, to: hidden)
  }
}
