import Tensors

/// Writes a checkpoint of a run as a model alone, without the state of optimizer and run.
public enum ModelExport {
  /// Weights that the run trained are exact in float32, also where the checkpoint's files of
  /// weights have them rounded.
  ///
  /// - Parameters:
  ///   - output: a folder that does not exist yet, or is empty.
  ///   - type: float32 or bfloat16 for all weights; nil: each as the checkpoint stores it.
  /// - Returns: the model's configuration.
  /// - Throws: ``CheckpointError``: the folder is no whole checkpoint, `output` is in use, or
  ///   there is no room.
  @discardableResult
  public static func write(
    checkpoint: String, to output: String, as type: ScalarType? = nil, shardBytes: Int = 4 << 30
  ) throws -> ModelConfiguration {
    try requireFolder(checkpoint)
    let configuration = try ModelConfiguration.load(folder: checkpoint)
    try configuration.requireFloats(
      folder: checkpoint, purpose: "is no checkpoint of training")
    try CheckpointManifest.load(folder: checkpoint).check(
      folder: checkpoint, checksDigests: false)
    let state = try TrainingStateReader(folder: checkpoint)
    let held = try WeightNames.all(configuration).map { weight in
      CheckpointLayout.Held(
        name: weight.name, shape: weight.shape,
        storedType: try state.model.entry(weight.name).scalarType, isTrained: false)
    }
    let layout = try CheckpointLayout(
      stages: [held], configuration: configuration, source: state.model, saveType: type,
      shardBytes: shardBytes, withOptimizer: false)
    let writer = try CheckpointWriter.begin(export: output, layout: layout, source: state.model)
    for file in layout.modelFiles {
      let target = try SafetensorsWriter(
        path: "\(writer.folder)/\(file.path)", entries: file.entries)
      for entry in file.entries {
        try ShardFile.write(
          tensor(entry, state), as: entry.name, entry.scalarType, to: target)
      }
      try target.commit()
    }
    _ = try writer.commit(state: nil, saveType: type)
    return configuration
  }

  private static func tensor(
    _ entry: SafetensorsWriter.Entry, _ state: TrainingStateReader
  ) throws -> Tensor {
    let weight = try state.model.tensor(
      entry.name, shape: entry.shape, neededFor: "a model is whole")
    guard entry.scalarType == .float32, weight.scalarType != .float32,
      let master = try state.tensor(named: OptimizerNames.master(entry.name))
    else { return weight }
    guard master.scalarType == .float32, master.shape == entry.shape else {
      throw CheckpointError.unexpectedTensor(
        file: state.folder, tensor: OptimizerNames.master(entry.name),
        expected: "float32 \(entry.shape)", found: "\(master.scalarType) \(master.shape)")
    }
    return master
  }
}
