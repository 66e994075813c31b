import Checkpoint
import Kernels
import Tensors

/// Takes one stage's tensors from a checkpoint and adds up their bytes.
///
/// Frozen tensors stay mapped from the checkpoint. What is trained becomes a ``Parameter``, whose
/// float32 elements the layers hold views of.
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
  }

  private let checkpoint: CheckpointReader
  /// Who needs the tensors, for errors: "this stage holds vision layers 0–8".
  private let purpose: String
  private let training: Training?
  /// Bytes of the weights as the layers read them.
  private(set) var byteCount = 0
  /// What is trained, in the order taken.
  private(set) var parameters: [Parameter] = []
  /// Everything taken, in that order.
  private(set) var held: [HeldTensor] = []

  init(
    _ checkpoint: CheckpointReader, part: String, layers: Range<Int>, training: Training? = nil
  ) {
    self.init(
      checkpoint,
      purpose: layers.count == 1
        ? "this stage holds \(part) layer \(layers.lowerBound)"
        : "this stage holds \(part) layers \(layers.lowerBound)–\(layers.upperBound - 1)",
      training: training)
  }

  init(_ checkpoint: CheckpointReader, purpose: String, training: Training? = nil) {
    self.checkpoint = checkpoint
    self.purpose = purpose
    self.training = training
  }

  /// - Throws: `CheckpointError` when the tensor is missing or has another shape.
  mutating func take(_ weight: Weight) throws -> ModelWeight {
    let stored = try checkpoint.tensor(weight, neededFor: purpose)
    guard let training, training.trains else {
      byteCount += stored.byteCount
      held.append(HeldTensor(weight.name, stored, storedType: stored.scalarType))
      return ModelWeight(stored)
    }
    return try hold(
      Parameter(
        weight.name, start: stored, storedType: stored.scalarType,
        decaysInHF: training.decay(weight.name), state: training.weights.state))
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
    let matrix: ModelWeight = try take(weight)
    let position = held.count - 1
    let vector = try take(bias)
    guard adapts, let training, let lora = training.adapters else {
      return LinearLayer(matrix, bias: vector)
    }
    let adapter = try takeAdapter(weight, lora, training)
    held[position].adapter = adapter
    return LinearLayer(matrix, bias: vector, adapter: adapter)
  }

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

  private mutating func hold(_ parameter: Parameter, isAdapter: Bool = false) -> ModelWeight {
    byteCount += parameter.value.byteCount
    parameters.append(parameter)
    held.append(
      HeldTensor(
        parameter.name, parameter.value, storedType: parameter.storedType, isAdapter: isAdapter))
    return ModelWeight(parameter.value, gradient: parameter.gradient)
  }
}
