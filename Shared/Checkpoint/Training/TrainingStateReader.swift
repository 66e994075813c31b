import Tensors

/// The state of a training run in a checkpoint: parameters in float32 and their moments, by name,
/// whichever stages wrote them.
public final class TrainingStateReader: Sendable {
  public let folder: String
  public let state: TrainerState
  /// The weights, as chat uses them.
  public let model: CheckpointReader
  private let optimizer: CheckpointReader?

  /// - Throws: ``CheckpointError`` when the folder is not a whole checkpoint.
  public init(folder: String) throws {
    self.folder = folder
    state = try TrainerState.load(folder: folder)
    model = try CheckpointReader(folder: folder)
    let states = "\(folder)/\(OptimizerNames.folder)"
    optimizer =
      fileExists("\(states)/\(OptimizerNames.index)")
      ? try CheckpointReader(folder: states, index: OptimizerNames.index) : nil
  }

  /// Updates of the optimizer so far.
  public var updates: Int { state.updates }

  /// Names of the parameters that have moments, sorted.
  public var trainedNames: [String] {
    let prefix = OptimizerNames.firstMoment("")
    return (optimizer?.names ?? []).filter { $0.hasPrefix(prefix) }
      .map { String($0.dropFirst(prefix.count)) }
  }

  /// A parameter in float32: its master, or else the weight of the model, widened.
  ///
  /// - Throws: ``CheckpointError`` when there is neither, or it has another shape.
  public func value(_ name: String, shape: [Int]) throws -> Tensor {
    if let master = try tensor(OptimizerNames.master(name), shape: shape) { return master }
    let weight = try model.tensor(
      name, shape: shape, neededFor: "the run that is resumed trains it")
    return weight.scalarType == .float32 ? weight : weight.converted(to: .float32)
  }

  /// The mean of a parameter's gradients, float32.
  ///
  /// - Throws: ``CheckpointError/missingState(folder:parameter:state:)`` when the run that wrote
  ///   the checkpoint did not train the parameter.
  public func firstMoment(_ name: String, shape: [Int]) throws -> Tensor {
    try required(OptimizerNames.firstMoment(name), of: name, "first moment", shape)
  }

  /// The mean of their squares, float32.
  ///
  /// - Throws: what ``firstMoment(_:shape:)`` throws.
  public func secondMoment(_ name: String, shape: [Int]) throws -> Tensor {
    try required(OptimizerNames.secondMoment(name), of: name, "second moment", shape)
  }

  /// A tensor by its full name: `exp_avg.NAME`, `exp_avg_sq.NAME`, `master.NAME`, or that of a
  /// weight; nil when there is none.
  ///
  /// - Throws: ``CheckpointError`` when its file is not valid.
  public func tensor(named name: String) throws -> Tensor? {
    if let optimizer, optimizer.contains(name) { return try optimizer.tensor(name) }
    return model.contains(name) ? try model.tensor(name) : nil
  }

  private func required(
    _ name: String, of parameter: String, _ state: String, _ shape: [Int]
  ) throws -> Tensor {
    guard let tensor = try tensor(name, shape: shape) else {
      throw CheckpointError.missingState(folder: folder, parameter: parameter, state: state)
    }
    return tensor
  }

  private func tensor(_ name: String, shape: [Int]) throws -> Tensor? {
    guard let optimizer, optimizer.contains(name) else { return nil }
    let tensor = try optimizer.tensor(
      name, shape: shape, neededFor: "the run that is resumed trains it")
    return tensor.scalarType == .float32 ? tensor : tensor.converted(to: .float32)
  }
}
