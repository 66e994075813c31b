import Checkpoint
import Kernels
import Tensors

/// A slice of the vision encoder's layers.
///
/// The stage that starts at layer 0 also holds the embeddings. Layers behind the one whose
/// output the projector takes (`select_layer`) are not part of the model, and no norm follows
/// the last.
///
/// Several tiles may be one call. Each is computed in products of its own, of a shape that the
/// model sets, so that its bits do not depend on the company it is in.
///
/// Legend: n tiles, P patches of a tile, C channels.
public struct VisionStage: Sendable {
  /// Layers held.
  public let layers: Range<Int>
  /// Layers of the encoder that the model uses.
  public let layerCount: Int
  /// Shape of a tile's hidden states: [1 + P, C].
  public let hiddenShape: [Int]
  /// Bytes of weights held: packed, mapped from the checkpoint or computed from it.
  public let weightBytes: Int
  /// Most bytes held besides weights, by one embed or forward call with one tile.
  public let workingBytes: Int

  private let device: any Device
  let feedForward: Int
  let normalizesHeads: Bool
  let embedding: VisionEmbedding?
  let blocks: [VisionLayer]
  /// What a call works in, kept for the next.
  private let kept = Kept<VisionActivations>()

  /// Whether the stage holds the embeddings.
  public var isFirst: Bool { layers.lowerBound == 0 }
  /// Whether the stage's output goes to the projector.
  public var isLast: Bool { layers.upperBound == layerCount }

  /// - Throws: ``InternVLError/layersOutsideModel(part:layers:available:)``, and
  ///   `CheckpointError` for a tensor that is missing or has another shape.
  public init(
    _ configuration: ModelConfiguration, layers: Range<Int>, checkpoint: CheckpointReader,
    device: any Device
  ) throws {
    var weights = StageWeights(checkpoint, part: "vision", layers: layers, packer: device)
    try self.init(configuration, layers: layers, weights: &weights, device: device)
  }

  init(
    _ configuration: ModelConfiguration, layers: Range<Int>, weights: inout StageWeights,
    device: any Device
  ) throws {
    let vision = configuration.vision
    try LayerSplit.check(
      layers, available: configuration.usedVisionLayers, part: "vision encoder")
    self.layers = layers
    self.layerCount = configuration.usedVisionLayers
    self.device = device
    let rows = 1 + configuration.gridSize * configuration.gridSize
    hiddenShape = [rows, vision.hiddenSize]
    feedForward = vision.intermediateSize
    normalizesHeads = vision.qkNormalization
    embedding =
      layers.lowerBound == 0
      ? try VisionEmbedding(configuration, weights: &weights) : nil
    blocks = try layers.map { layer in
      try VisionLayer(configuration, layer: layer, weights: &weights)
    }
    weightBytes = weights.byteCount
    workingBytes = max(
      embedding?.scratchBytes ?? 0,
      VisionActivations.byteCount(
        .init(
          rows: rows, width: vision.hiddenSize, feedForward: feedForward,
          normalizesHeads: normalizesHeads)))
  }

  /// pixels [n, 3, H, W] → hidden [n, 1 + P, C], the input of layer 0; or both without n.
  ///
  /// - Throws: `TensorError` for a wrong shape,
  ///   ``InternVLError/wrongStage(what:layers:needed:)``.
  public func embed(_ pixels: Tensor, into hidden: Tensor) throws {
    guard let embedding else {
      throw InternVLError.wrongStage(what: "embed pixels", layers: layers, needed: "first")
    }
    let side = embedding.imageSize
    let tiles = try check(hidden)
    let shape = [3, side, side]
    try pixels.require(
      shape: hidden.shape.count == 3 ? [tiles] + shape : shape, "pixels of \(tiles) tiles")
    try pixels.require(.float32, what: "pixels of a tile")
    try embedding.forward(
      pixels.reshaped([tiles] + shape), into: hidden.reshaped([tiles] + hiddenShape), on: device)
  }

  /// hidden [n, 1 + P, C], or [1 + P, C] of one tile, through the stage's layers, in place.
  ///
  /// - Parameter isCancelled: Asked before each layer.
  /// - Throws: `CancellationError` once `isCancelled` says so, `TensorError` for a wrong shape.
  public func forward(_ hidden: Tensor, isCancelled: () -> Bool = { false }) throws {
    let tiles = try check(hidden)
    let shape = shape(tiles: tiles)
    let rows = hidden.reshaped([shape.rows, shape.width])
    try kept.use {
      $0.v.shape[0] == shape.rows
    } make: {
      VisionActivations(sharing: shape) { Tensor(uninitialized: .float32, $0) }
    } _: { activations in
      for block in blocks {
        if isCancelled() { throw CancellationError() }
        try block.forward(rows, activations, on: device)
      }
    }
  }

  func shape(tiles: Int) -> VisionActivations.Shape {
    VisionActivations.Shape(
      rows: tiles * hiddenShape[0], width: hiddenShape[1], feedForward: feedForward,
      normalizesHeads: normalizesHeads)
  }

  /// - Returns: the number of tiles.
  private func check(_ hidden: Tensor) throws -> Int {
    let isBatch = hidden.shape.count == 3
    let tiles = isBatch ? hidden.shape[0] : 1
    try hidden.require(
      shape: isBatch ? [tiles] + hiddenShape : hiddenShape, "vision hidden states")
    try hidden.require(.float32, what: "vision hidden states of a tile")
    return tiles
  }
}
