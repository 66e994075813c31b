import Tensors

/// The weights of ``ModelParts`` under the release's names, which the parts have without the
/// part's own prefix.
struct PartReaders {
  private let vision: CheckpointReader
  private let projector: CheckpointReader?
  private let language: CheckpointReader

  /// - Throws: ``CheckpointError`` when a part is missing or has no weights.
  init(_ parts: ModelParts) throws {
    vision = try CheckpointReader(folder: parts.vision)
    projector = try parts.projector.map { try CheckpointReader(file: $0) }
    language = try CheckpointReader(folder: parts.language)
  }

  /// Where a weight is, and its name there; nil for those of a projector that is not given.
  ///
  /// - Throws: ``CheckpointError/missingTensor(file:tensor:neededFor:)``.
  func source(of name: String) throws -> (reader: CheckpointReader, name: String)? {
    let reader: CheckpointReader
    if name.hasPrefix("mlp1.") {
      guard let projector else { return nil }
      reader = projector
    } else {
      reader = name.hasPrefix("vision_model.") ? vision : language
    }
    if reader.contains(name) { return (reader, name) }
    let own = String(name[name.index(after: name.firstIndex(of: ".") ?? name.startIndex)...])
    guard reader.contains(own) else {
      throw CheckpointError.missingTensor(
        file: reader.folder, tensor: own, neededFor: "the model is put together from it")
    }
    return (reader, own)
  }

  /// - Throws: what ``source(of:)`` throws, and errors of reading.
  func tensor(_ weight: Weight) throws -> Tensor? {
    guard let source = try source(of: weight.name) else { return nil }
    return try source.reader.tensor(source.name)
  }
}
