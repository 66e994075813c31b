import Checkpoint
import Kernels
import Tensors

/// A slice of the vision encoder's layers.
///
/// The stage that starts at layer 0 also holds the embeddings. Layers behind the one whose
/// output the projector takes (`select_layer`) are not part of the model, and no norm follows
/// the last.
///
/// One tile is one call, so that every product has the same shape whatever picture it is from
/// and whatever company it is in.
///
/// Legend: P patches of a tile, C channels.
public struct VisionStage: Sendable {
  /// Layers held.
  public let layers: Range<Int>
  /// Layers of the encoder that the model uses.
  public let layerCount: Int
  /// Shape of a tile's hidden states: [1 + P, C].
  public let hiddenShape: [Int]
  /// Bytes of weights held, mapped from the checkpoint or computed from it.
  public let weightBytes: Int
  /// Most bytes held besides weights, by one embed or forward call.
  public let workingBytes: Int

  private let device: any Device
  private let feedForward: Int
  private let embedding: VisionEmbedding?
  private let blocks: [VisionLayer]

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
    let vision = configuration.vision
    try LayerSplit.check(
      layers, available: configuration.usedVisionLayers, part: "vision encoder")
    var weights = StageWeights(checkpoint, part: "vision", layers: layers)
    self.layers = layers
    self.layerCount = configuration.usedVisionLayers
    self.device = device
    let rows = 1 + configuration.gridSize * configuration.gridSize
    hiddenShape = [rows, vision.hiddenSize]
    feedForward = vision.intermediateSize
    embedding =
      layers.lowerBound == 0
      ? try VisionEmbedding(configuration, weights: &weights) : nil
    blocks = try layers.map { layer in
      try VisionLayer(configuration, layer: layer, weights: &weights)
    }
    weightBytes = weights.byteCount
    workingBytes = max(
      embedding?.scratchBytes ?? 0,
      VisionLayer.Scratch.byteCount(
        rows: rows, width: vision.hiddenSize, feedForward: feedForward))
  }

  /// pixels [3, H, W] → hidden [1 + P, C], the input of layer 0.
  ///
  /// - Throws: `TensorError` for a wrong shape,
  ///   ``InternVLError/wrongStage(what:layers:needed:)``.
  public func embed(_ pixels: Tensor, into hidden: Tensor) throws {
    guard let embedding else {
      throw InternVLError.wrongStage(what: "embed pixels", layers: layers, needed: "first")
    }
    let side = embedding.imageSize
    try pixels.require(shape: [3, side, side], "pixels of a tile")
    try pixels.require(.float32, what: "pixels of a tile")
    try check(hidden)
    try embedding.forward(pixels, into: hidden, on: device)
  }

  /// hidden [1 + P, C] of one tile through the stage's layers, in place.
  ///
  /// - Parameter isCancelled: Asked before each layer.
  /// - Throws: `CancellationError` once `isCancelled` says so, `TensorError` for a wrong shape.
  public func forward(_ hidden: Tensor, isCancelled: () -> Bool = { false }) throws {
    try check(hidden)
    let scratch = VisionLayer.Scratch(
      rows: hiddenShape[0], width: hiddenShape[1], feedForward: feedForward)
    for block in blocks {
      if isCancelled() { throw CancellationError() }
      try block.forward(hidden, scratch: scratch, device: device)
    }
  }

  private func check(_ hidden: Tensor) throws {
    try hidden.require(shape: hiddenShape, "vision hidden states of a tile")
    try hidden.require(.float32, what: "vision hidden states of a tile")
  }
}
