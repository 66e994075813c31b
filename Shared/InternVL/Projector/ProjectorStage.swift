import Checkpoint
import Kernels
import Tensors

/// What turns the vision encoder's patches into rows beside word embeddings: pixel shuffle, and
/// `mlp1` of the reference's modeling_internvl_chat.py (norm, linear, GELU, linear).
///
/// Legend: n tiles, P patches of a tile, C vision channels, f patches merged on a side, D model
/// width.
public struct ProjectorStage: Sendable {
  /// Image tokens of a tile.
  public let tokenCount: Int
  /// D.
  public let width: Int
  /// Bytes of weights held, packed or mapped from the checkpoint.
  public let weightBytes: Int
  /// Most bytes held besides weights, by one forward call with one tile.
  public let workingBytes: Int

  /// PyTorch's default, which the reference leaves as it is.
  private static let epsilon: Float = 1e-5

  /// Results between the operations, of n tiles together.
  struct Activations {
    /// [n·tokens, f²·C], before and after the norm.
    let merged: Tensor
    fileprivate(set) var normalized: Tensor
    /// [n·tokens, D], before and after GELU.
    fileprivate(set) var wide: Tensor
    fileprivate(set) var activated: Tensor

    private static var none: Tensor { Tensor(uninitialized: .float32, [0]) }

    /// Without the results of norm and activation function.
    mutating func thin() { (normalized, activated) = (Self.none, Self.none) }
    /// Without all that can be computed from ``merged``.
    mutating func thinToInput() {
      thin()
      wide = Self.none
    }
  }

  private let device: any Device
  /// [1 + P, C]
  let visionShape: [Int]
  private let merge: PatchMerge
  private let norm: Normalization
  private let fc1: LinearLayer
  private let fc2: LinearLayer
  /// What a call works in, kept for the next.
  private let kept = Kept<Activations>()

  /// - Throws: `CheckpointError` for a tensor that is missing or has another shape.
  public init(
    _ configuration: ModelConfiguration, checkpoint: CheckpointReader, device: any Device
  ) throws {
    var weights = ProjectorStage.weights(checkpoint, packer: device)
    try self.init(configuration, weights: &weights, device: device)
  }

  static func weights(
    _ checkpoint: CheckpointReader, training: StageWeights.Training? = nil,
    packer: (any Device)? = nil
  ) -> StageWeights {
    StageWeights(
      checkpoint, purpose: "this stage is the projector", training: training, packer: packer)
  }

  init(
    _ configuration: ModelConfiguration, weights: inout StageWeights, device: any Device
  ) throws {
    let grid = configuration.gridSize
    let channels = configuration.vision.hiddenSize
    let width = configuration.language.hiddenSize
    let names = WeightNames.Projector(configuration)
    merge = PatchMerge(
      grid: grid, factor: configuration.mergedPatches, channels: channels,
      order: configuration.pixelShuffle)
    self.device = device
    self.width = width
    tokenCount = merge.tokenCount
    visionShape = [1 + grid * grid, channels]
    norm = try Normalization(
      names.normWeight, bias: names.normBias, epsilon: ProjectorStage.epsilon, weights: &weights)
    fc1 = try weights.takeLinear(names.fc1Weight, bias: names.fc1Bias, adapts: false)
    fc2 = try weights.takeLinear(names.fc2Weight, bias: names.fc2Bias, adapts: false)
    weightBytes = weights.byteCount
    workingBytes = tokenCount * (merge.tokenWidth + width) * ScalarType.float32.byteCount
  }

  /// vision [n, 1 + P, C], or [1 + P, C] of one tile, with the class token, → rows
  /// [n·tokens, D].
  ///
  /// - Throws: `TensorError` for a wrong shape.
  public func forward(_ vision: Tensor, into rows: Tensor) throws {
    let tiles = vision.shape.count == 3 ? vision.shape[0] : 1
    try kept.use {
      $0.merged.shape[0] == tiles * tokenCount
    } make: {
      activations(tiles: tiles, sharing: true) { Tensor(uninitialized: .float32, $0) }
    } _: {
      try forward(vision, $0, into: rows)
    }
  }

  /// - Parameter sharing: Whether a result may take the place of what it is computed from.
  func activations(
    tiles: Int, sharing: Bool, make: ([Int]) -> Tensor
  ) -> Activations {
    let merged = make([tiles * tokenCount, merge.tokenWidth])
    let wide = make([tiles * tokenCount, width])
    return Activations(
      merged: merged, normalized: sharing ? merged : make(merged.shape), wide: wide,
      activated: sharing ? wide : make(wide.shape))
  }

  func forward(_ vision: Tensor, _ a: Activations, into rows: Tensor) throws {
    let tiles = vision.shape.count == 3 ? vision.shape[0] : 1
    try vision.require(
      shape: vision.shape.count == 3 ? [tiles] + visionShape : visionShape, "vision output")
    try vision.require(.float32, what: "vision output of a tile")
    try rows.require(shape: [tiles * tokenCount, width], "image rows of \(tiles) tiles")
    let pictures = vision.reshaped([tiles] + visionShape)
    for tile in 0..<tiles {
      merge.apply(
        pictures[tile].rows(1..<visionShape[0]),
        into: a.merged.rows(tile * tokenCount..<(tile + 1) * tokenCount))
    }
    try norm.forward(a.merged, into: a.normalized, on: device)
    if a.activated.baseAddress == a.wide.baseAddress {
      try fc1.forwardGELU(a.normalized, into: a.activated, on: device)
    } else {
      try fc1.forward(a.normalized, into: a.wide, on: device)
      try activate(a)
    }
    try fc2.forward(a.activated, into: rows, on: device)
  }

  /// Computes again what was let go of `a`.
  func restore(_ a: inout Activations, make: ([Int]) -> Tensor) throws {
    if a.normalized.count != a.merged.count {
      a.normalized = make(a.merged.shape)
      try norm.forward(a.merged, into: a.normalized, on: device)
    }
    let shape = [a.merged.shape[0], width]
    if a.wide.shape != shape {
      a.wide = make(shape)
      try fc1.forward(a.normalized, into: a.wide, on: device)
    }
    if a.activated.shape != shape {
      a.activated = make(shape)
      try activate(a)
    }
  }

  /// dRows [n·tokens, D] → dVision [n, 1 + P, C], whose class tokens get zeros; nil: not wanted.
  func backward(
    dRows: Tensor, _ a: Activations, into dVision: Tensor?, _ pass: TrainingPass
  ) throws {
    let isTrainedBefore = fc1.isTrained || norm.isTrained
    guard dVision != nil || isTrainedBefore else {
      return try fc2.backward(
        dY: pass.keepable(dRows), x: a.activated, into: nil, pass)
    }
    let dWide = pass.tensor(a.wide.shape)
    try fc2.backward(
      dY: pass.keepable(dRows), x: a.activated, into: dWide, pass)
    try pass.device.geluGradient(dY: dWide, x: a.wide, into: dWide)
    let dMerged = pass.tensor(a.merged.shape)
    try fc1.backward(dY: dWide, x: a.normalized, into: dMerged, pass)
    try norm.backward(dY: dMerged, x: a.merged, into: dMerged, on: pass.device)
    guard let dVision else { return }
    for tile in 0..<dVision.shape[0] {
      try pass.device.clear(dVision[tile].rows(0..<1))
      merge.undo(
        dMerged.rows(tile * tokenCount..<(tile + 1) * tokenCount),
        into: dVision[tile].rows(1..<visionShape[0]))
    }
  }

  private func activate(_ a: Activations) throws {
    a.activated.copyElements(from: a.wide)
    try device.gelu(a.activated)
  }
}
