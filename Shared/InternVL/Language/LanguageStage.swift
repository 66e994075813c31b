import Checkpoint
import Kernels
import Tensors

/// A slice of the language model's decoder layers with the keys and values of its sequences.
///
/// The first stage also holds the embedding table, the last one the final norm and the head;
/// where the checkpoint ties the two, both map the same tensor. Rows of different sequences
/// share one pass over the weights, and a row's result does not depend on its company, on how
/// its prompt is cut into chunks, or on how the layers are split into stages.
///
/// Legend: T rows of a step, n chosen rows, D model width, V vocabulary.
public struct LanguageStage: Sendable {
  /// Layers held.
  public let layers: Range<Int>
  /// Layers of the whole language model.
  public let layerCount: Int
  /// D.
  public let width: Int
  /// V.
  public let vocabulary: Int
  /// Positions the model knows; `Int.max` with dynamic scaling, where only the cache is a bound.
  public let contextLength: Int
  /// Bytes of weights held, packed or mapped from the checkpoint.
  public let weightBytes: Int
  /// Most bytes held besides weights: a full cache, and the scratch of one forward or logits
  /// call of ``maximumRows`` rows.
  public let workingBytes: Int
  /// Keys and values of the sequences at work.
  public let cache: KeyValueCache

  /// Rows computed at once; a longer step is worked off in pieces, with the same result.
  public static let maximumRows = 512

  private let device: any Device
  let shape: DecoderLayer.Shape
  private let rotary: RotaryEmbedding
  private let kept = Kept<Scratch>()
  let blocks: [DecoderLayer]
  let embedding: MatrixWeight?
  let norm: Normalization?
  let head: MatrixWeight?

  /// Whether the stage holds the embedding table.
  public var isFirst: Bool { layers.lowerBound == 0 }
  /// Whether the stage holds the final norm and the head.
  public var isLast: Bool { layers.upperBound == layerCount }

  /// - Parameters:
  ///   - cacheTokens: Positions to keep keys and values of, over all sequences.
  ///   - cacheType: How they are held.
  /// - Throws: ``InternVLError/layersOutsideModel(part:layers:available:)``,
  ///   ``InternVLError/cacheBudget(tokens:maximum:)``, and `CheckpointError` for a tensor that is
  ///   missing or has another shape.
  public init(
    _ configuration: ModelConfiguration, layers: Range<Int>, checkpoint: CheckpointReader,
    device: any Device, cacheTokens: Int, cacheType: CacheType = .float32
  ) throws {
    var weights = StageWeights(checkpoint, part: "language", layers: layers, packer: device)
    try self.init(
      configuration, layers: layers, weights: &weights, device: device, cacheTokens: cacheTokens,
      cacheType: cacheType)
  }

  init(
    _ configuration: ModelConfiguration, layers: Range<Int>, weights: inout StageWeights,
    device: any Device, cacheTokens: Int, cacheType: CacheType = .float32
  ) throws {
    let language = configuration.language
    try LayerSplit.check(layers, available: language.layerCount, part: "language model")
    let shape = DecoderLayer.Shape(
      width: language.hiddenSize, heads: language.headCount,
      keyValueHeads: language.keyValueHeadCount, headSize: language.headSize,
      feedForward: language.intermediateSize, epsilon: language.epsilon)
    let possible = KeyValueCache.maximumTokens(
      layers: layers.count, keyValueHeads: shape.keyValueHeads, headSize: shape.headSize,
      type: cacheType)
    guard 0...possible ~= cacheTokens else {
      throw InternVLError.cacheBudget(tokens: cacheTokens, maximum: possible)
    }
    self.layers = layers
    self.layerCount = language.layerCount
    self.width = shape.width
    self.vocabulary = language.vocabularySize
    self.contextLength = language.contextLength
    self.device = device
    self.shape = shape
    rotary = RotaryEmbedding(language)
    let isLast = layers.upperBound == language.layerCount
    embedding =
      layers.lowerBound == 0
      ? try weights.takeTable(
        WeightNames.languageEmbedding(configuration), isHead: isLast && language.tiesEmbeddings)
      : nil
    blocks = try layers.map { layer in
      try DecoderLayer(configuration, layer: layer, shape: shape, weights: &weights)
    }
    norm =
      isLast
      ? try Normalization(
        WeightNames.languageNorm(configuration), epsilon: shape.epsilon, weights: &weights) : nil
    // The rows of a float table are read as they are, the head is better packed.
    if isLast, language.tiesEmbeddings, let embedding,
      embedding.isPacked || !weights.packsMatrices
    {
      head = embedding
    } else {
      head = isLast ? try weights.takeMatrix(WeightNames.languageHead(configuration)) : nil
    }
    weightBytes = weights.byteCount
    cache = KeyValueCache(
      layers: layers.count, keyValueHeads: shape.keyValueHeads, headSize: shape.headSize,
      tokens: cacheTokens, type: cacheType)
    let rowBytes =
      (DecoderActivations.floats(perRowOf: shape) + shape.headSize)
      * ScalarType.float32.byteCount
    workingBytes = cache.byteLimit + LanguageStage.maximumRows * rowBytes
  }

  /// hidden [T, D] ← the embeddings of `ids` [T], and image rows in the place of some.
  ///
  /// - Throws: ``InternVLError/imageRowsOutsideStep(row:count:step:)``, `KernelError` for an id that
  ///   the table does not have, `TensorError` for a wrong shape,
  ///   ``InternVLError/wrongStage(what:layers:needed:)``.
  public func embed(
    ids: [Int32], imageRows: [ImageRows] = [], into hidden: Tensor
  ) throws {
    guard let embedding else {
      throw InternVLError.wrongStage(what: "embed tokens", layers: layers, needed: "first")
    }
    try hidden.require(shape: [ids.count, width], "hidden states of the step")
    try hidden.require(.float32, what: "hidden states of the step")
    for image in imageRows {
      let rows = image.features.shape.first ?? 0
      try image.features.require(shape: [rows, width], "image rows")
      try image.features.require(.float32, what: "image rows")
      guard image.row >= 0, image.row <= ids.count - rows else {
        throw InternVLError.imageRowsOutsideStep(row: image.row, count: rows, step: ids.count)
      }
    }
    try device.embed(ids, table: embedding.value, into: hidden)
    for image in imageRows {
      let rows = image.row..<image.row + image.features.shape[0]
      hidden.rows(rows).copyElements(from: image.features)
    }
  }

  /// hidden [T, D] through the stage's layers, in place.
  ///
  /// Reserves what the step needs of the cache, where that has not been done before. When the
  /// call throws, the cache holds of each sequence what came before the step, or less.
  ///
  /// - Parameter steps: The sequences of the step, which cover its rows in order.
  /// - Throws: ``InternVLError`` for steps that do not fit together, the cache or the context.
  public func forward(_ hidden: Tensor, steps: [SequenceRows]) throws {
    try check(hidden, steps)
    for step in steps { try cache.reserve(sequence: step.sequence, tokens: step.end) }
    let chunks = steps.chunked(limit: LanguageStage.maximumRows)
    guard let longest = chunks.map(\.rows.count).max() else { return }
    for step in steps { cache.setLength(of: step.sequence, to: step.position) }
    try kept.use {
      $0.rows >= longest
    } make: {
      Scratch(shape, rows: longest)
    } _: { scratch in
      for chunk in chunks { try forward(hidden.rows(chunk.rows), chunk.steps, scratch) }
    }
    for step in steps { cache.setLength(of: step.sequence, to: step.end) }
  }

  private func forward(_ rows: Tensor, _ steps: [SequenceRows], _ scratch: Scratch) throws {
    let count = rows.shape[0]
    let rotation = rotation(steps, rows: count, angles: scratch.angles)
    let activations = scratch.activations.rows(0..<count)
    for (index, block) in blocks.enumerated() {
      try block.forward(
        rows, rotation: rotation, attention: .cached(cache.spans(for: steps, layer: index)),
        activations, on: device)
    }
  }

  /// What steps work in, kept from one to the next and as large as the largest so far.
  private struct Scratch {
    let rows: Int
    let activations: DecoderActivations
    /// [2, rows, H/2]
    let angles: Tensor

    init(_ shape: DecoderLayer.Shape, rows: Int) {
      self.rows = rows
      activations = DecoderActivations(sharing: shape, rows: rows) {
        Tensor(uninitialized: .float32, $0)
      }
      angles = Tensor(uninitialized: .float32, [2, rows, shape.headSize / 2])
    }
  }

  /// The angles of the first `rows` rows of a step.
  ///
  /// - Parameter angles: Memory [2, at least rows, H/2].
  func rotation(
    _ steps: [SequenceRows], rows: Int, angles: Tensor
  ) -> DecoderLayer.Rotation {
    let rotation = DecoderLayer.Rotation(
      cosines: angles[0].rows(0..<rows), sines: angles[1].rows(0..<rows),
      places: Array(0..<rows))
    rotary.fill(steps, cosines: rotation.cosines, sines: rotation.sines)
    return rotation
  }

  /// logits [n, V] of hidden rows [n, D] that the last layer gave: final norm, then the head.
  ///
  /// - Throws: ``InternVLError/wrongStage(what:layers:needed:)``, `TensorError`.
  public func logits(_ hidden: Tensor, into logits: Tensor) throws {
    guard let norm, let head else {
      throw InternVLError.wrongStage(what: "compute logits", layers: layers, needed: "last")
    }
    let rows = hidden.shape.first ?? 0
    try hidden.require(shape: [rows, width], "hidden states for logits")
    try hidden.require(.float32, what: "hidden states for logits")
    try logits.require(shape: [rows, vocabulary], "logits")
    let limit = LanguageStage.maximumRows
    let normalized = Tensor(uninitialized: .float32, [min(rows, limit), width])
    for start in stride(from: 0, to: rows, by: limit) {
      let part = start..<min(start + limit, rows)
      let views = normalized.rows(0..<part.count)
      try norm.forward(hidden.rows(part), into: views, on: device)
      try device.linear(views, [LinearProduct(head.value, into: logits.rows(part))])
    }
  }

  private func check(_ hidden: Tensor, _ steps: [SequenceRows]) throws {
    let rows = hidden.shape.first ?? 0
    try hidden.require(shape: [rows, width], "hidden states of the step")
    try hidden.require(.float32, what: "hidden states of the step")
    var next = 0
    var seen: Set<UInt64> = []
    for step in steps {
      guard step.rows.lowerBound == next, !step.rows.isEmpty, step.rows.upperBound <= rows else {
        throw InternVLError.rowsNotCovered(
          sequence: step.sequence, rows: step.rows, expectedStart: next, total: rows)
      }
      next = step.rows.upperBound
      guard seen.insert(step.sequence).inserted else {
        throw InternVLError.sequenceTwice(sequence: step.sequence)
      }
      let cached = cache.length(of: step.sequence) ?? 0
      guard step.position >= 0, step.position <= cached else {
        throw InternVLError.positionGap(
          sequence: step.sequence, position: step.position, cached: cached)
      }
      guard step.rows.count <= contextLength - step.position else {
        throw InternVLError.beyondContext(
          sequence: step.sequence, end: step.position + step.rows.count, context: contextLength)
      }
    }
    guard next == rows else {
      throw InternVLError.rowsNotCovered(
        sequence: steps.last?.sequence ?? 0, rows: next..<rows, expectedStart: rows, total: rows)
    }
  }
}
