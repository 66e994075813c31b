/// Floating-point operations of a model of InternVL's shape: a multiplication and an addition are
/// two. Products of matrices and attention count, rows of norms and the like do not.
///
/// For balancing stages before anything has been measured, and for utilization: needed operations
/// over seconds times peak. What is recomputed is not needed.
public struct ModelArithmetic: Sendable, Equatable {
  /// Of one pass over one piece of the model.
  public struct Operations: Sendable, Equatable {
    public var forward: Double
    public var backwardInput: Double
    public var backwardWeight: Double

    public static let zero = Operations(forward: 0, backwardInput: 0, backwardWeight: 0)

    init(forward: Double, backwardInput: Double, backwardWeight: Double) {
      self.forward = forward
      self.backwardInput = backwardInput
      self.backwardWeight = backwardWeight
    }

    /// Products with weights take as much for each gradient as forward; attention's two products
    /// have four in the backward, none of them of a weight.
    init(products: Double, attention: Double = 0) {
      self.init(
        forward: products + attention, backwardInput: products + 2 * attention,
        backwardWeight: products)
    }

    /// Forward and both gradients.
    public var total: Double { forward + backwardInput + backwardWeight }

    public static func + (a: Operations, b: Operations) -> Operations {
      Operations(
        forward: a.forward + b.forward, backwardInput: a.backwardInput + b.backwardInput,
        backwardWeight: a.backwardWeight + b.backwardWeight)
    }

    static func * (a: Operations, factor: Double) -> Operations {
      Operations(
        forward: a.forward * factor, backwardInput: a.backwardInput * factor,
        backwardWeight: a.backwardWeight * factor)
    }
  }

  /// Widths and lengths, named as in config.json.
  public struct Shape: Sendable, Equatable {
    public var visionLayers = 45
    public var visionHiddenSize = 3200
    public var visionIntermediateSize = 12_800
    public var patchSize = 14
    public var channels = 3
    /// Patches of a tile: the side of the picture over the side of a patch, squared.
    public var patches = 1024
    /// Rows that the projector makes of a tile.
    public var imageTokens = 256
    public var languageLayers = 60
    public var hiddenSize = 7168
    public var intermediateSize = 20_480
    /// Columns of keys, or of values: key-value heads times head size.
    public var keyValueSize = 1024
    public var vocabularySize = 64_007

    /// InternVL-Chat-V1.2.
    public init() {}
  }

  public var shape: Shape

  public init(_ shape: Shape) {
    self.shape = shape
  }

  /// One layer of the vision encoder over tiles, each attending to itself.
  public func visionLayer(tiles: Int) -> Operations {
    let rows = Double(shape.patches + 1)
    let width = Double(shape.visionHiddenSize)
    let weights = 4 * width * width + 2 * width * Double(shape.visionIntermediateSize)
    return Operations(products: 2 * rows * weights, attention: 4 * rows * rows * width)
      * Double(tiles)
  }

  /// Pixels get no gradient.
  public func patchEmbedding(tiles: Int) -> Operations {
    let patch = Double(shape.channels * shape.patchSize * shape.patchSize)
    let products =
      2 * Double(shape.patches) * patch * Double(shape.visionHiddenSize) * Double(tiles)
    return Operations(forward: products, backwardInput: 0, backwardWeight: products)
  }

  public func projector(tiles: Int) -> Operations {
    let rows = Double(shape.imageTokens * tiles)
    let merged = Double(shape.visionHiddenSize) * Double(shape.patches) / Double(shape.imageTokens)
    let width = Double(shape.hiddenSize)
    return Operations(products: 2 * rows * (merged * width + width * width))
  }

  /// One decoder layer over samples of so many tokens, each attending to itself, causally.
  public func languageLayer(sequences: [Int]) -> Operations {
    languageLayer(sequences.map { MicroBatch.Sample(key: 0, tokens: $0, tiles: 0) })
  }

  /// The same of samples with turns that are hidden from each other.
  public func languageLayer(_ samples: [MicroBatch.Sample]) -> Operations {
    let width = Double(shape.hiddenSize)
    let weights =
      2 * width * width + 2 * width * Double(shape.keyValueSize)
      + 3 * width * Double(shape.intermediateSize)
    return samples.reduce(.zero) { sum, sample in
      let rows = Double(sample.tokens)
      // Twice the keys that rows see, but those of other turns.
      var seen = rows * (rows + 1)
      var before = 0.0
      for turn in sample.turns {
        seen -= 2 * before * Double(turn)
        before += Double(turn)
      }
      return sum + Operations(products: 2 * rows * weights, attention: 2 * seen * width)
    }
  }

  public func head(rows: Int) -> Operations {
    Operations(products: 2 * Double(rows) * Double(shape.hiddenSize * shape.vocabularySize))
  }

  /// Operations of every vision layer, the first with the patch embedding.
  public func visionLayers(tiles: Int) -> [Operations] {
    var layers = Array(repeating: visionLayer(tiles: tiles), count: shape.visionLayers)
    if !layers.isEmpty { layers[0] = layers[0] + patchEmbedding(tiles: tiles) }
    return layers
  }

  /// Operations of every decoder layer, the last with the head.
  public func languageLayers(sequences: [Int]) -> [Operations] {
    languageLayers(sequences.map { MicroBatch.Sample(key: 0, tokens: $0, tiles: 0) })
  }

  /// The same of samples with turns that are hidden from each other.
  public func languageLayers(_ samples: [MicroBatch.Sample]) -> [Operations] {
    var layers = Array(repeating: languageLayer(samples), count: shape.languageLayers)
    if let last = layers.indices.last {
      layers[last] = layers[last] + head(rows: samples.reduce(0) { $0 + $1.tokens })
    }
    return layers
  }

  /// Which gradients a part needs.
  public struct Trained: Sendable, Equatable {
    public var vision: Bool
    public var projector: Bool
    public var language: Bool

    public init(vision: Bool = true, projector: Bool = true, language: Bool = true) {
      self.vision = vision
      self.projector = projector
      self.language = language
    }
  }

  /// All operations that a step needs. Adapters count as frozen weights: they are small, but the
  /// gradient passes through what is in front of them; `adapters` says where that is.
  public func step(
    _ microBatches: [MicroBatch], trained: Trained = Trained(),
    adapters: Trained = Trained(vision: false, projector: false, language: false)
  ) -> Double {
    let hasVision = trained.vision || adapters.vision
    let hasImageRows = hasVision || trained.projector || adapters.projector
    let isLanguageReached = hasImageRows || trained.language || adapters.language
    func needed(_ operations: Operations, weights: Bool, inputs: Bool) -> Double {
      operations.forward + (weights ? operations.backwardWeight : 0)
        + (inputs ? operations.backwardInput : 0)
    }
    return microBatches.reduce(0) { sum, microBatch in
      let vision = visionLayers(tiles: microBatch.tiles).reduce(.zero, +)
      let language = languageLayers(microBatch.samples).reduce(.zero, +)
      return sum + needed(vision, weights: trained.vision, inputs: hasVision)
        + needed(
          projector(tiles: microBatch.tiles), weights: trained.projector, inputs: hasImageRows)
        + needed(language, weights: trained.language, inputs: isLanguageReached)
    }
  }
}

extension ModelArithmetic.Operations {
  /// Of a stage that recomputes its layers in the backward: what they cost it, not what is needed.
  public func cost(_ recompute: Recompute) -> StageCosts.Stage {
    StageCosts.Stage(
      forward: forward, backwardInput: backwardInput + (recompute == .full ? forward : 0),
      backwardWeight: backwardWeight)
  }
}
