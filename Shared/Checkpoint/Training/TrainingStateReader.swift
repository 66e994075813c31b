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

  /// A parameter in float32: its master, or else the weight of the model, widened; nil when there
  /// is neither.
  ///
  /// - Throws: ``CheckpointError`` when its file is not valid.
  public func value(of parameter: String) throws -> Tensor? {
    if let master = try float32(OptimizerNames.master(parameter)) { return master }
    guard model.contains(parameter) else { return nil }
    return try model.tensor(parameter).converted(to: .float32)
  }

  /// The running mean of a parameter's gradients, float32; nil when the run that wrote the
  /// checkpoint did not train it.
  ///
  /// - Throws: ``CheckpointError`` when its file is not valid.
  public func firstMoment(of parameter: String) throws -> Tensor? {
    try float32(OptimizerNames.firstMoment(parameter))
  }

  /// The running mean of their squares.
  ///
  /// - Throws: what ``firstMoment(of:)`` throws.
  public func secondMoment(of parameter: String) throws -> Tensor? {
    try float32(OptimizerNames.secondMoment(parameter))
  }

  /// Checks, by headers alone, that there are moments of all these parameters in their shapes, and
  /// masters of those that the model's files do not hold in float32.
  ///
  /// - Throws: ``CheckpointError/missingState(folder:parameter:state:)``, and errors of files and
  ///   shapes.
  public func require(_ parameters: [Weight]) throws {
    for parameter in parameters {
      let isExact =
        try model.contains(parameter.name)
        && model.entry(parameter.name).scalarType == .float32
      for name in OptimizerNames.all(of: parameter.name, withMaster: !isExact) {
        guard let optimizer, optimizer.contains(name) else {
          throw CheckpointError.missingState(
            folder: folder, parameter: parameter.name, state: name)
        }
        let entry = try optimizer.entry(name)
        guard entry.shape == parameter.shape, entry.scalarType == .float32 else {
          throw CheckpointError.unexpectedTensor(
            file: folder, tensor: name, expected: "float32 \(parameter.shape)",
            found: "\(entry.scalarType) \(entry.shape)")
        }
      }
    }
  }

  /// A tensor by its full name: `exp_avg.NAME`, `exp_avg_sq.NAME`, `master.NAME`, or that of a
  /// weight; nil when there is none.
  ///
  /// - Throws: ``CheckpointError`` when its file is not valid.
  public func tensor(named name: String) throws -> Tensor? {
    if let optimizer, optimizer.contains(name) { return try optimizer.tensor(name) }
    return model.contains(name) ? try model.tensor(name) : nil
  }

  private func float32(_ name: String) throws -> Tensor? {
    guard let optimizer, optimizer.contains(name) else { return nil }
    let tensor = try optimizer.tensor(name)
    guard tensor.scalarType == .float32 else {
      throw CheckpointError.unexpectedTensor(
        file: folder, tensor: name, expected: "float32", found: "\(tensor.scalarType)")
    }
    return tensor
  }
}
