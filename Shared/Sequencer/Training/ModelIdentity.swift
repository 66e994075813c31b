import Checkpoint

extension CheckpointReader {
  /// Says that a run goes on with the model it began with: the same configuration, and tensors of
  /// the same names, types and shapes. Of the weights' files only the headers are read, and how
  /// tensors are dealt to files does not count.
  ///
  /// - Throws: `CheckpointError` when a header is not valid.
  func identity(_ configuration: ModelConfiguration) throws -> String {
    var text = configuration.digest
    for name in names {
      let entry = try entry(name)
      text += "\n\(name) \(entry.scalarType) \(entry.shape)"
    }
    return Digest.sha256(Array(text.utf8))
  }
}
