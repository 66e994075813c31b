import Checkpoint
import Kernels
import Tensors

/// Takes one stage's tensors from a checkpoint and adds up their bytes.
///
/// Where a stage serves, float matrices are packed for its device, one after the other, and the
/// pages they were read from given back; matrices that a file holds packed stay mapped, as do
/// vectors. In a slice that trains, frozen tensors stay mapped row by row, and what is trained
/// becomes a ``Parameter``, whose float32 elements the layers hold views of.
struct StageWeights {
  /// What of the stage's part of the model is trained.
  struct Training {
    let weights: TrainingWeights
    /// The part itself; false where adapters are trained instead.
    let trains: Bool
    let adapters: LoRA?
    let seed: UInt64
    /// "vision_model" or "language_model": what PEFT's names begin with.
    let prefix: String
    let decay: (String) -> Bool
    /// Whether every row of an embedding table gets a gradient.
    var wantsWholeTable = false
    /// The one weight that is trained; nil: all of the part are.
    var only: String?

    func trains(_ weight: Weight) -> Bool { trains && (only ?? weight.name) == weight.name }
  }

  private let checkpoint: CheckpointReader
  /// Who needs the tensors, for errors: "this stage holds vision layers 0–8".
  private let purpose: String
  private let training: Training?
  /// Packs matrices; nil: they stay as they are.
  private let packer: (any Device)?
  /// Bytes of the weights as the layers read them.
  private(set) var byteCount = 0
  /// What is trained, in the order taken.
  private(set) var parameters: [Parameter] = []
  /// Everything taken, in that order.
  private(set) var held: [HeldTensor] = []

  init(
    _ checkpoint: CheckpointReader, part: String, layers: Range<Int>, training: Training? = nil,
    packer: (any Device)? = nil
  ) {
    self.init(
      checkpoint,
      purpose: layers.count == 1
        ? "this stage holds \(part) layer \(layers.lowerBound)"
        : "this stage holds \(part) layers \(layers.lowerBound)–\(layers.upperBound - 1)",
      training: training, packer: packer)
  }

  /// - Parameter packer: for a stage that serves: the device that its matrices are packed for.
  init(
    _ checkpoint: CheckpointReader, purpose: String, training: Training? = nil,
    packer: (any Device)? = nil
  ) {
    self.checkpoint = checkpoint
    self.purpose = purpose
    self.training = training
    self.packer = packer
  }

  /// - Throws: `CheckpointError` when the tensor is missing or has another shape.
  mutating func take(_ weight: Weight) throws -> ModelWeight {
    let stored = try checkpoint.tensor(weight, neededFor: purpose)
    guard let training, training.trains(weight) else {
      byteCount += stored.byteCount
      held.append(HeldTensor(weight.name, stored, storedType: stored.scalarType))
      return ModelWeight(stored)
    }
    let parameter = try Parameter(
      weight.name, start: stored, storedType: stored.scalarType,
      decaysInHF: training.decay(weight.name), state: training.weights.state)
    stored.giveBackPages()
    return try hold(parameter)
  }

  /// The same, or nil where the model has no such tensor.
  mutating func take(_ weight: Weight?) throws -> ModelWeight? {
    guard let weight else { return nil }
    return try take(weight) as ModelWeight
  }

  /// A product's weights, and an adapter beside it where the part is trained by adapters.
  mutating func takeLinear(
    _ weight: Weight, bias: Weight? = nil, adapts: Bool = true
  ) throws -> LinearLayer {
    try takeLinear(weight, bias: bias, adapts: adapts, parts: 1)[0]
  }

  /// The same, cut into `parts` products of as many outputs each.
  mutating func takeLinear(
    _ weight: Weight, bias: Weight? = nil, adapts: Bool = true, parts: Int
  ) throws -> [LinearLayer] {
    let size = weight.shape[0] / parts
    let ranges = (0..<parts).map { $0 * size..<($0 + 1) * size }
    guard let training else {
      let matrices = try takeMatrix(weight, ranges)
      let vector = try take(bias)
      return zip(matrices, ranges).map { matrix, range in
        LinearLayer(matrix, bias: vector?.rows(range))
      }
    }
    let matrix: ModelWeight = try take(weight)
    let position = held.count - 1
    let vector = try take(bias)
    var adapter: LowRankAdapter?
    if adapts, let lora = training.adapters {
      adapter = try takeAdapter(weight, lora, training)
      held[position].adapter = adapter
    }
    return ranges.map { range in
      LinearLayer(
        MatrixWeight(matrix.rows(range).matrix), bias: vector?.rows(range),
        adapter: adapter?.rows(range))
    }
  }

  /// The head, or a table that is both head and embedding table.
  mutating func takeMatrix(_ weight: Weight) throws -> MatrixWeight {
    guard training == nil else { return MatrixWeight(try take(weight)) }
    return try takeMatrix(weight, [0..<weight.shape[0]])[0]
  }

  /// An embedding table, of which a step reads few rows.
  ///
  /// - Parameter isHead: whether it is the head as well.
  mutating func takeTable(_ weight: Weight, isHead: Bool) throws -> MatrixWeight {
    guard let training else {
      return try takeMatrix(weight, [0..<weight.shape[0]], packs: false)[0]
    }
    guard training.trains(weight), !isHead, !training.wantsWholeTable else {
      return MatrixWeight(try take(weight))
    }
    let stored = try checkpoint.tensor(weight, neededFor: purpose)
    let parameter = try Parameter(
      weight.name, start: stored, storedType: stored.scalarType,
      decaysInHF: training.decay(weight.name), state: training.weights.state, byRows: true)
    stored.giveBackPages()
    guard case .rows(let gradient) = parameter.gradientSum else {
      preconditionFailure("asked for by rows")
    }
    hold(parameter)
    return MatrixWeight(table: parameter.value, gradient: gradient)
  }

  private mutating func takeMatrix(
    _ weight: Weight, _ ranges: [Range<Int>], packs: Bool = true
  ) throws -> [MatrixWeight] {
    let stored = try checkpoint.matrix(weight, neededFor: purpose)
    let parts: [LinearWeight]
    switch stored {
    case .panels(let matrix): parts = ranges.map { .panels(matrix.rows($0)) }
    case .rows(let stored):
      let rows = stored.matrix
      if packs, let packer, packsMatrices {
        parts = try ranges.map { .panels(try packer.pack(rows.rows($0))) }
        stored.giveBackPages()
      } else {
        parts = ranges.map { .rows(rows.rows($0)) }
      }
    }
    byteCount += parts.reduce(0) { $0 + $1.byteCount }
    return parts.map { MatrixWeight($0) }
  }

  /// Whether float matrices are packed.
  var packsMatrices: Bool { StageWeights.packs && packer != nil }

  private static let packs = true

  /// Counts a tensor that was computed from the checkpoint's and stays in memory.
  mutating func count(_ tensor: Tensor) { byteCount += tensor.byteCount }

  private mutating func takeAdapter(
    _ weight: Weight, _ lora: LoRA, _ training: Training
  ) throws -> LowRankAdapter {
    let names = AdapterNames(weight.name, prefix: training.prefix)
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let state = training.weights.state
    let a = try Parameter(
      names.a, start: AdapterStart.tensor(names.a, rank: lora.rank, inputs, training.seed),
      storedType: .float32, decaysInHF: true, state: state)
    let b = try Parameter(
      names.b, start: Tensor(zeros: .float32, [outputs, lora.rank]), storedType: .float32,
      decaysInHF: true, state: state)
    return LowRankAdapter(
      a: hold(a, isAdapter: true), b: hold(b, isAdapter: true),
      scale: Float(lora.alpha / Double(lora.rank)), dropout: Float(lora.dropout),
      names: names, place: Draws.place(names.a))
  }

  @discardableResult
  private mutating func hold(_ parameter: Parameter, isAdapter: Bool = false) -> ModelWeight {
    byteCount += parameter.value.byteCount
    parameters.append(parameter)
    held.append(
      HeldTensor(
        parameter.name, parameter.value, storedType: parameter.storedType, isAdapter: isAdapter))
    guard case .whole(let gradient) = parameter.gradientSum else {
      return ModelWeight(parameter.value)
    }
    return ModelWeight(parameter.value, gradient: gradient)
  }
}

extension Tensor {
  /// As a matrix of as many rows: a convolution's kernel [C, 3, S, S] as [C, 3·S·S].
  fileprivate var matrix: Tensor {
    reshaped([shape[0], shape.dropFirst().reduce(1, *)])
  }
}

extension ModelWeight {
  fileprivate var matrix: ModelWeight {
    reshaped([value.shape[0], value.shape.dropFirst().reduce(1, *)])
  }
}
