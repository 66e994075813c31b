import Checkpoint
import Kernels
import Tensors
import Training

/// A slice of the language model that trains. See ``LanguageStage``.
///
/// Legend: n tiles, T rows of text, D model width, V vocabulary.
public final class LanguageTrainer: TrainingSlice {
  private struct Saved {
    let microBatch: MicroBatch
    let step: UInt64
    /// Of all layers, unless the backward pass has no use for them.
    var layers: [DecoderActivations] = []
    /// The same with full recomputation: their inputs [T, D].
    var inputs: [Tensor] = []
    /// What the last layer gave [T, D], at the end of the model.
    var hidden: Tensor?
    /// What came from the projector [n·tokens, D], where image rows are named.
    var images: Tensor?
  }

  /// The slice as it serves, over the same weights.
  public let stage: LanguageStage
  public let parameters: [Parameter]
  public let tensors: [HeldTensor]
  public let needsInputGradient: Bool
  public var defersWeightGradients = true

  private let device: any TrainingDevice
  private let options: TrainingOptions
  private let imageToken: Int32?
  private let imageTokensEach: Int
  /// Where image rows are named: at the beginning of the model.
  private let naming: RowNaming?
  private var memory: SliceMemory<Saved>
  private var objectives: [Int: [ObjectiveLoss]] = [:]

  /// - Parameters:
  ///   - cacheTokens: Positions to keep keys and values of when the slice serves.
  ///   - cacheType: How they are held.
  ///   - imageToken: The id of `<IMG_CONTEXT>`, in whose places image rows go; the first slice
  ///     needs it. A negative id is such a place, too.
  ///   - pool: Memory shared with slices that work in turn with this one.
  /// - Throws: ``InternVLError``, `CheckpointError`, and what the state throws.
  public init(
    _ configuration: ModelConfiguration, layers: Range<Int>, weights: TrainingWeights,
    device: any TrainingDevice, options: TrainingOptions, cacheTokens: Int = 0,
    cacheType: CacheType = .float32, imageToken: Int32?, pool: TensorPool? = nil
  ) throws {
    let parts = TrainingParts(configuration: configuration, options: options)
    let language = configuration.language
    let isEnd = layers.lowerBound == 0 || layers.upperBound == language.layerCount
    if language.tiesEmbeddings, options.trainsLanguage, options.languageLoRA == nil, isEnd,
      layers.count != language.layerCount
    {
      throw InternVLError.tiedTensorSplit(layers: layers)
    }
    var taken = StageWeights(
      weights.model, part: "language", layers: layers, training: parts.languageWeights(weights))
    stage = try LanguageStage(
      configuration, layers: layers, weights: &taken, device: device, cacheTokens: cacheTokens,
      cacheType: cacheType)
    naming = options.objectives.naming ? stage.embedding.map { RowNaming($0) } : nil
    parameters = taken.parameters
    tensors = taken.held
    needsInputGradient = parts.trains(beforeLanguage: layers.lowerBound)
    self.device = device
    memory = SliceMemory(sharing: pool)
    self.options = options
    self.imageToken = imageToken
    imageTokensEach = configuration.imageTokenCount
  }

  public var trainingBytes: Int { parameters.reduce(0) { $0 + $1.byteCount } }
  public var savedBytes: Int { memory.bytes }
  public var hasBackward: Bool { needsInputGradient || !parameters.isEmpty }
  public var takesPart: Bool { options.objectives.answers || naming != nil }

  public func inputShape(of microBatch: MicroBatch) -> [Int]? {
    guard stage.isFirst else { return [microBatch.rows, stage.width] }
    return microBatch.tiles > 0 ? [microBatch.tiles * imageTokensEach, stage.width] : nil
  }

  public func outputShape(of microBatch: MicroBatch) -> [Int]? {
    stage.isLast || !options.objectives.answers ? nil : [microBatch.rows, stage.width]
  }

  public func forward(
    _ index: Int, _ microBatch: MicroBatch, step: UInt64, input: Tensor?, into output: Tensor?
  ) throws {
    guard options.objectives.answers else {
      return try keepImages(index, microBatch, step: step, input)
    }
    let rows = microBatch.rows
    for sample in microBatch.samples where sample.tokens > stage.contextLength {
      throw InternVLError.beyondContext(
        sequence: sample.key, end: sample.tokens, context: stage.contextLength)
    }
    let pass = self.pass(microBatch, step)
    let hidden =
      stage.isLast
      ? pass.tensor([rows, stage.width])
      : try Slices.require(output, [rows, stage.width], "output of the language layers")
    var input = input
    if let shape = inputShape(of: microBatch) {
      input = try Slices.require(input, shape, "input of the language layers")
    }
    if stage.isFirst {
      try embed(microBatch, images: microBatch.tiles > 0 ? input : nil, into: hidden)
    } else if let input {
      hidden.copyElements(from: input)
    }
    var saved = Saved(microBatch: microBatch, step: step)
    if naming != nil, microBatch.namingTargets != nil { saved.images = input.map(pass.copy) }
    let rotation = rotation(microBatch, pass)
    let attention = DecoderLayer.Attention.whole(microBatch.attention, device)
    let keeps = reachesLayers(microBatch)
    let shared =
      keeps && options.recompute != .full
      ? nil : DecoderActivations(sharing: stage.shape, rows: rows, make: pass.tensor)
    for block in stage.blocks {
      if let shared {
        if keeps { saved.inputs.append(pass.copy(hidden)) }
        try block.forward(
          hidden, rotation: rotation, attention: attention, shared, on: device, pass)
      } else {
        var kept = DecoderActivations(keeping: stage.shape, rows: rows, make: pass.tensor)
        try block.forward(
          hidden, rotation: rotation, attention: attention, kept, on: device, pass)
        if options.recompute == .selective { kept.thin() }
        saved.layers.append(kept)
      }
    }
    if stage.isLast { saved.hidden = hidden }
    memory.keep(saved, of: index)
  }

  public func backward(
    _ index: Int, gradient: Tensor?, into inputGradient: Tensor?
  ) throws -> (sum: Double, rows: Int)? {
    var saved = try memory.take(index)
    guard hasBackward else { return nil }
    guard options.objectives.answers else {
      try nameImages(index, saved, into: inputGradient)
      return nil
    }
    let microBatch = saved.microBatch
    let pass = self.pass(microBatch, saved.step)
    let shape = [microBatch.rows, stage.width]
    let dX: Tensor
    var loss: (sum: Double, rows: Int)?
    if let hidden = saved.hidden {
      dX = pass.tensor(shape)
      loss = try crossEntropy(hidden, microBatch, into: dX, pass)
    } else {
      dX = pass.copy(
        try Slices.require(gradient, shape, "gradient of the language layers' output"))
    }
    if reachesLayers(microBatch) {
      try backwardThroughLayers(dX, &saved, pass)
      try takeInputGradient(dX, microBatch, into: inputGradient, pass)
    }
    try name(index, saved, dImages: inputGradient, pass)
    memory.leave(pass, of: index)
    return loss
  }

  public func accumulate(_ index: Int) throws { try memory.accumulate(index, on: device) }

  public func loss(_ index: Int) throws -> (sum: Double, rows: Int)? {
    let saved = try memory.take(index)
    let pass = self.pass(saved.microBatch, saved.step)
    try name(index, saved, dImages: nil, gradients: false, pass)
    guard let hidden = saved.hidden else { return nil }
    return try crossEntropy(hidden, saved.microBatch, into: nil, pass)
  }

  public func takeObjectives(_ index: Int) -> [ObjectiveLoss] {
    objectives.removeValue(forKey: index) ?? []
  }

  public func discard() {
    memory.discard()
    objectives = [:]
  }

  // MARK: Naming

  /// The forward pass without answers: image rows go no further.
  private func keepImages(
    _ index: Int, _ microBatch: MicroBatch, step: UInt64, _ input: Tensor?
  ) throws {
    var saved = Saved(microBatch: microBatch, step: step)
    if naming != nil, let shape = inputShape(of: microBatch) {
      let images = try Slices.require(input, shape, "input of the language layers")
      if microBatch.namingTargets != nil { saved.images = pass(microBatch, step).copy(images) }
    }
    memory.keep(saved, of: index)
  }

  /// The backward pass without answers.
  private func nameImages(
    _ index: Int, _ saved: Saved, into inputGradient: Tensor?
  ) throws {
    if needsInputGradient, let shape = inputShape(of: saved.microBatch) {
      try device.clear(
        Slices.require(inputGradient, shape, "gradient of the image rows"))
    }
    try name(index, saved, dImages: inputGradient, pass(saved.microBatch, saved.step))
  }

  /// The loss of image rows' naming, and what it adds to gradients.
  ///
  /// - Parameter dImages: of the image rows, added to where they need one.
  private func name(
    _ index: Int, _ saved: Saved, dImages: Tensor?, gradients: Bool = true, _ pass: TrainingPass
  ) throws {
    guard let naming, let images = saved.images, let targets = saved.microBatch.namingTargets
    else { return }
    objectives[index] = [
      try naming.loss(
        index, of: targets, images: images,
        dImages: gradients && needsInputGradient ? dImages : nil,
        dTable: gradients ? naming.table.gradient : nil, pass)
    ]
  }

  // MARK: Ends

  /// hidden [T, D] ← embeddings, and image rows in the places for them.
  private func embed(_ microBatch: MicroBatch, images: Tensor?, into hidden: Tensor) throws {
    let ids = microBatch.ids
    guard ids.count == microBatch.rows else {
      throw InternVLError.tokensMissing(what: "ids", found: ids.count, rows: microBatch.rows)
    }
    // One value for both kinds of place; 0 is an id of every table.
    let marked = ids.map { isImage($0) ? -1 : $0 }
    let places = try ImageRows.places(of: images, in: marked, placeholder: -1)
    try stage.embed(ids: marked.map { max($0, 0) }, imageRows: places, into: hidden)
  }

  private func isImage(_ id: Int32) -> Bool { id < 0 || id == imageToken }

  /// What the rows of the first slice were made of gets their gradient.
  private func takeInputGradient(
    _ dX: Tensor, _ microBatch: MicroBatch, into inputGradient: Tensor?, _ pass: TrainingPass
  ) throws {
    guard stage.isFirst else {
      guard needsInputGradient else { return }
      let what = "gradient of the language layers' input"
      return try Slices.require(inputGradient, dX.shape, what).copyElements(from: dX)
    }
    if let embedding = stage.embedding, embedding.isTrained {
      let ids = microBatch.ids.map { isImage($0) ? -1 : $0 }
      if let gradient = embedding.gradient {
        try device.embedGradient(dY: dX, ids: ids, into: gradient)
      }
      try embedding.rowGradient?.add(dX, ids: ids, on: device)
    }
    guard needsInputGradient, let shape = inputShape(of: microBatch) else { return }
    let dImages = try Slices.require(inputGradient, shape, "gradient of the image rows")
    let places = microBatch.ids.indices.filter { isImage(microBatch.ids[$0]) }
    for (row, place) in places.enumerated() { dImages[row].copyElements(from: dX[place]) }
  }

  /// Final norm, head and loss.
  ///
  /// - Parameter dHidden: [T, D], written; nil: the loss alone.
  private func crossEntropy(
    _ hidden: Tensor, _ microBatch: MicroBatch, into dHidden: Tensor?, _ pass: TrainingPass
  ) throws -> (sum: Double, rows: Int) {
    guard let norm = stage.norm, let head = stage.head else {
      preconditionFailure("hidden states are kept at the end alone")
    }
    guard microBatch.labels.count == microBatch.rows else {
      throw InternVLError.tokensMissing(
        what: "labels", found: microBatch.labels.count, rows: microBatch.rows)
    }
    let normalized = pass.tensor(hidden.shape)
    try norm.forward(hidden, into: normalized, on: device)
    let loss = try device.crossEntropy(
      hidden: normalized, weight: head.rows, labels: microBatch.labels,
      scale: Float(microBatch.lossScale), dHidden: dHidden,
      dWeight: dHidden == nil ? nil : head.gradient)
    if let dHidden {
      try norm.backward(dY: dHidden, x: hidden, into: dHidden, on: device)
    }
    return loss
  }

  // MARK: Layers

  private func backwardThroughLayers(
    _ dX: Tensor, _ saved: inout Saved, _ pass: TrainingPass
  ) throws {
    let microBatch = saved.microBatch
    let rotation = rotation(microBatch, pass)
    let sequences = microBatch.attention
    for (place, block) in stage.blocks.enumerated().reversed() {
      let activations: DecoderActivations
      switch options.recompute {
      case .none: activations = saved.layers.removeLast()
      case .selective:
        var restored = saved.layers.removeLast()
        restored.restore(make: pass.tensor)
        try block.recompute(restored, on: device)
        activations = restored
      case .full:
        activations = DecoderActivations(
          keeping: stage.shape, rows: microBatch.rows, make: pass.tensor)
        try block.forward(
          saved.inputs.removeLast(), rotation: rotation,
          attention: .whole(sequences, device), activations, on: device, pass, givesOutput: false)
      }
      try block.backward(
        dX: dX, rotation: rotation, sequences: sequences, activations, pass,
        wantsInput: place > 0 || wantsInput(microBatch))
    }
  }

  /// Whether anything takes the gradient of the slice's first hidden states.
  private func wantsInput(_ microBatch: MicroBatch) -> Bool {
    guard stage.isFirst else { return needsInputGradient }
    return stage.embedding?.isTrained == true || needsInputGradient && microBatch.tiles > 0
  }

  /// Whether a backward pass goes through the layers.
  private func reachesLayers(_ microBatch: MicroBatch) -> Bool {
    !parameters.isEmpty || wantsInput(microBatch)
  }

  private func rotation(
    _ microBatch: MicroBatch, _ pass: TrainingPass
  ) -> DecoderLayer.Rotation {
    let steps = microBatch.attention.enumerated().flatMap { $1.steps(sequence: UInt64($0)) }
    let angles = pass.tensor([2, microBatch.rows, stage.shape.headSize / 2])
    return stage.rotation(steps, rows: microBatch.rows, angles: angles)
  }

  private func pass(_ microBatch: MicroBatch, _ step: UInt64) -> TrainingPass {
    TrainingPass(
      device: device, pool: memory.pool, seed: options.seed, step: step,
      groups: microBatch.textGroups, defers: defersWeightGradients)
  }
}
