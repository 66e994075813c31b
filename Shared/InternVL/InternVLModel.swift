import Checkpoint
import Kernels
import Tensors

/// The whole model in one process, stage after stage.
///
/// What a mesh of processes computes has to be this, bit for bit.
///
/// Legend: P patches of a tile, C vision channels, D model width, V vocabulary.
public struct InternVLModel: Sendable {
  public let configuration: ModelConfiguration
  public let vision: [VisionStage]
  public let projector: ProjectorStage
  public let language: [LanguageStage]

  /// - Parameters:
  ///   - visionLayers, languageLayers: The layers of each stage, in order, which together are
  ///     all layers of the part; nil: one stage.
  ///   - cacheTokens: Positions to keep keys and values of; nil: one full context.
  ///   - cacheType: How they are held.
  /// - Throws: `CheckpointError`, ``InternVLError``.
  public init(
    _ configuration: ModelConfiguration, checkpoint: CheckpointReader, device: any Device,
    visionLayers: [Range<Int>]? = nil, languageLayers: [Range<Int>]? = nil,
    cacheTokens: Int? = nil, cacheType: CacheType = .float32
  ) throws {
    let positions = cacheTokens ?? configuration.language.maxPositions
    self.configuration = configuration
    vision = try InternVLModel.split(visionLayers, configuration.usedVisionLayers, "vision encoder")
      .map {
        try VisionStage(configuration, layers: $0, checkpoint: checkpoint, device: device)
      }
    projector = try ProjectorStage(configuration, checkpoint: checkpoint, device: device)
    language = try InternVLModel.split(
      languageLayers, configuration.language.layerCount, "language model"
    ).map {
      try LanguageStage(
        configuration, layers: $0, checkpoint: checkpoint, device: device,
        cacheTokens: positions, cacheType: cacheType)
    }
  }

  init(
    _ configuration: ModelConfiguration, vision: [VisionStage], projector: ProjectorStage,
    language: [LanguageStage]
  ) {
    self.configuration = configuration
    self.vision = vision
    self.projector = projector
    self.language = language
  }

  /// Opens the model in `folder`.
  ///
  /// - Throws: `CheckpointError`, ``InternVLError``.
  public init(
    folder: String, device: any Device, cacheTokens: Int? = nil, cacheType: CacheType = .float32
  ) throws {
    try self.init(
      ModelConfiguration.load(folder: folder), checkpoint: CheckpointReader(folder: folder),
      device: device, cacheTokens: cacheTokens, cacheType: cacheType)
  }

  // MARK: Pictures

  /// pixels [3, H, W] of one tile → the vision encoder's output [1 + P, C], class token first.
  public func visionOutput(_ pixels: Tensor) throws -> Tensor {
    let hidden = Tensor(uninitialized: .float32, vision[0].hiddenShape)
    try vision[0].embed(pixels, into: hidden)
    for stage in vision { try stage.forward(hidden) }
    return hidden
  }

  /// The vision encoder's output [1 + P, C] of one tile → its image rows [tokens, D].
  public func projectorOutput(_ vision: Tensor) throws -> Tensor {
    let rows = Tensor(uninitialized: .float32, [projector.tokenCount, projector.width])
    try projector.forward(vision, into: rows)
    return rows
  }

  /// pixels [tiles, 3, H, W], or [3, H, W] of one tile, → image rows [tiles · tokens, D].
  public func encode(_ pixels: Tensor) throws -> Tensor {
    let tiles = pixels.shape.count == 3 ? pixels.reshaped([1] + pixels.shape) : pixels
    let count = tiles.shape.first ?? 0
    let rows = Tensor(uninitialized: .float32, [count * projector.tokenCount, projector.width])
    for tile in 0..<count {
      let part = tile * projector.tokenCount..<(tile + 1) * projector.tokenCount
      try projector.forward(visionOutput(tiles[tile]), into: rows.rows(part))
    }
    return rows
  }

  // MARK: Text

  /// Gives the model a sequence's next tokens.
  ///
  /// - Parameters:
  ///   - ids: The tokens, which follow those the sequence already has.
  ///   - images: Image rows [n, D] for the places of `ids` that hold `placeholder`.
  ///   - chunk: Tokens in one pass over the weights; nil: all.
  /// - Returns: Logits [ids.count, V].
  /// - Throws: ``InternVLError``, `KernelError` for an id outside the vocabulary.
  public func prefill(
    _ sequence: UInt64, ids: [Int32], images: Tensor? = nil, placeholder: Int32? = nil,
    chunk: Int? = nil
  ) throws -> Tensor {
    guard !ids.isEmpty else { throw InternVLError.emptyPrompt }
    let places = try ImageRows.places(of: images, in: ids, placeholder: placeholder)
    let start = length(of: sequence)
    let logits = Tensor(uninitialized: .float32, [ids.count, language[0].vocabulary])
    for first in stride(from: 0, to: ids.count, by: max(chunk ?? ids.count, 1)) {
      let part = first..<min(first + max(chunk ?? ids.count, 1), ids.count)
      let step = SequenceRows(
        sequence: sequence, position: start + first, rows: 0..<part.count,
        promptLength: start + ids.count)
      try forward(
        Array(ids[part]), imageRows: places.compactMap { $0.clipped(to: part) }, steps: [step],
        into: logits.rows(part))
    }
    return logits
  }

  /// One token for each of several sequences, in one pass over the weights.
  ///
  /// - Returns: Logits [sequences, V], in the order of `tokens`.
  /// - Throws: ``InternVLError``, `KernelError` for an id outside the vocabulary.
  public func decode(_ tokens: [(sequence: UInt64, id: Int32)]) throws -> Tensor {
    let steps = tokens.enumerated().map { row, token in
      SequenceRows(
        sequence: token.sequence, position: length(of: token.sequence), rows: row..<row + 1)
    }
    let logits = Tensor(uninitialized: .float32, [tokens.count, language[0].vocabulary])
    try forward(tokens.map(\.id), imageRows: [], steps: steps, into: logits)
    return logits
  }

  /// One step through all language stages: tokens of any sequences, and logits of all rows.
  public func forward(
    _ ids: [Int32], imageRows: [ImageRows], steps: [SequenceRows], into logits: Tensor
  ) throws {
    let hidden = Tensor(uninitialized: .float32, [ids.count, language[0].width])
    try language[0].embed(ids: ids, imageRows: imageRows, into: hidden)
    for stage in language { try stage.forward(hidden, steps: steps) }
    try language[language.count - 1].logits(hidden, into: logits)
  }

  /// The most probable continuation of a prompt.
  ///
  /// - Parameters:
  ///   - limit: Tokens to generate at most.
  ///   - stop: Tokens after which to stop; the one met is part of the result.
  /// - Returns: The generated ids.
  public func generateGreedy(
    ids: [Int32], images: Tensor? = nil, placeholder: Int32? = nil, limit: Int,
    stop: Set<Int32> = [], sequence: UInt64 = 0
  ) throws -> [Int32] {
    release(sequence)
    defer { release(sequence) }
    guard limit > 0 else { return [] }
    let prompt = try prefill(sequence, ids: ids, images: images, placeholder: placeholder)
    var logits = prompt[ids.count - 1]
    var generated: [Int32] = []
    while true {
      let token = InternVLModel.greatest(logits)
      generated.append(token)
      guard generated.count < limit, !stop.contains(token) else { return generated }
      logits = try decode([(sequence, token)])[0]
    }
  }

  /// Tokens of a sequence that all stages hold.
  public func length(of sequence: UInt64) -> Int {
    language.map { $0.cache.length(of: sequence) ?? 0 }.min() ?? 0
  }

  /// Forgets a sequence.
  public func release(_ sequence: UInt64) {
    for stage in language { stage.cache.release(sequence: sequence) }
  }

  /// The first of the greatest logits [V].
  public static func greatest(_ logits: Tensor) -> Int32 {
    logits.withElements(of: Float.self) { values in
      var best = 0
      for index in values.indices where values[index] > values[best] { best = index }
      return Int32(best)
    }
  }

  static func split(
    _ layers: [Range<Int>]?, _ count: Int, _ part: String
  ) throws -> [Range<Int>] {
    guard let layers, count > 0 else { return [0..<count] }
    try LayerSplit.requireCover(layers, of: count, part: part)
    return layers
  }
}
