import Checkpoint
import Kernels
import Tensors

/// What turns pixels into the vision encoder's first hidden states: InternVisionEmbeddings of
/// the reference's modeling_intern_vit.py.
///
/// Legend: n tiles, P patches, S pixels on a side of one, C channels.
struct VisionEmbedding: Sendable {
  /// Pixels on a side of a tile.
  let imageSize: Int
  let patchSize: Int
  /// The class token's start [C].
  private let classToken: ModelWeight
  /// The convolution as a product: [C, 3·S·S].
  private let patches: LinearLayer
  /// As stored: [1, 1 + G², C].
  private let table: ModelWeight
  /// [1 + P, C] in float32, for the grid in use.
  private let positions: Tensor
  private let storedGrid: Int
  private let grid: Int

  /// P
  var patchCount: Int { grid * grid }
  /// C
  private var width: Int { positions.shape[1] }
  private var patchWidth: Int { patches.weight.depth }
  /// Bytes of one tile's patches.
  var scratchBytes: Int { patchCount * patchWidth * ScalarType.float32.byteCount }

  init(
    _ configuration: ModelConfiguration, weights: inout StageWeights
  ) throws {
    let vision = configuration.vision
    let width = vision.hiddenSize
    let names = WeightNames.VisionEmbeddings(configuration)
    imageSize = configuration.imageSize
    patchSize = vision.patchSize
    storedGrid = vision.gridSize
    grid = configuration.gridSize
    let start: ModelWeight = try weights.take(names.classEmbedding)
    classToken =
      start.isTrained
      ? start.reshaped([width]) : ModelWeight(Tensor(start.value.floats, [width]))
    patches = try weights.takeLinear(names.patchWeight, bias: names.patchBias, adapts: false)
    table = try weights.take(names.positionEmbedding)
    if table.isTrained && storedGrid == grid {
      positions = table.value.reshaped([1 + grid * grid, width])
    } else {
      positions = PositionTable.fitted(table.value, from: storedGrid, to: grid)
      weights.count(positions)
      let (value, positions, stored, used) = (table.value, positions, storedGrid, grid)
      weights.parameters.last?.refresh =
        table.isTrained
        ? { positions.copyElements(from: PositionTable.fitted(value, from: stored, to: used)) }
        : nil
    }
  }

  var isTrained: Bool { patches.isTrained }

  /// pixels [n, 3, H, W] → hidden [n, 1 + P, C]: the class token, then the patches row by row,
  /// each with its position added.
  func forward(_ pixels: Tensor, into hidden: Tensor, on device: any Device) throws {
    let scratch = Tensor(uninitialized: .float32, [patchCount, patchWidth])
    for tile in 0..<pixels.shape[0] {
      let rows = hidden[tile]
      try device.patches(pixels[tile], patch: patchSize, into: scratch)
      try patches.forward(
        scratch, into: rows.rows(1..<1 + patchCount),
        on: device)
      rows[0].copyElements(from: classToken.value)
      try device.addScaled(positions, scale: nil, to: rows)
    }
  }

  /// Adds to the gradients of the class token, the positions and the convolution.
  ///
  /// - Parameters:
  ///   - dHidden: [n, 1 + P, C]
  ///   - pixels: [n, 3, H, W], as in the forward pass.
  func backward(dHidden: Tensor, pixels: Tensor, _ pass: TrainingPass) throws {
    guard isTrained else { return }
    let tiles = pixels.shape[0]
    let dPatches = pass.tensor([tiles * patchCount, width])
    let unfolded = pass.tensor([tiles * patchCount, patchWidth])
    let dPositions = pass.tensor(positions.shape)
    try pass.device.clear(dPositions)
    for tile in 0..<tiles {
      let rows = tile * patchCount..<(tile + 1) * patchCount
      try pass.device.add(dHidden[tile], to: dPositions)
      if let gradient = classToken.gradient { try pass.device.add(dHidden[tile][0], to: gradient) }
      dPatches.rows(rows).copyElements(from: dHidden[tile].rows(1..<1 + patchCount))
      try pass.device.patches(pixels[tile], patch: patchSize, into: unfolded.rows(rows))
    }
    if let gradient = table.gradient {
      if storedGrid == grid {
        try pass.device.add(dPositions, to: gradient.reshaped(positions.shape))
      } else {
        PositionTable.addGradient(dPositions, from: storedGrid, to: grid, into: gradient)
      }
    }
    try pass.addProduct(
      x: unfolded, dY: dPatches, weight: patches.weight.gradient, bias: patches.bias?.gradient)
  }
}
