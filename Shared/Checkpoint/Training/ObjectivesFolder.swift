import Tensors

/// `objectives/` of a checkpoint: what was trained beside the model, and serves nobody but the next
/// run.
public struct ObjectivesFolder: Sendable {
  static let folder = "objectives"
  private static let patchClasses = "patch_classes"

  public enum Kind: String, Sendable, CaseIterable {
    case weight, bias
  }

  /// A head [K, C] and its bias [K], float32.
  public typealias Head = (weight: Tensor, bias: Tensor)

  private let file: SafetensorsFile

  /// The name of a head's parameter among all that a run trains.
  public static func parameter(_ kind: Kind, of group: String) -> String {
    "\(folder).\(patchClasses).\(group).\(kind.rawValue)"
  }

  /// Whether a parameter is of no model.
  public static func holds(_ parameter: String) -> Bool { parameter.hasPrefix("\(folder).") }

  /// The heads of patch classes that a model's folder has; nil: none.
  ///
  /// - Throws: ``CheckpointError`` when their file is damaged.
  public static func patchClasses(of model: String) throws -> ObjectivesFolder? {
    let path = "\(model)/\(folder)/\(patchClasses).safetensors"
    guard fileExists(path) else { return nil }
    return ObjectivesFolder(file: try SafetensorsFile(path: path))
  }

  private init(file: SafetensorsFile) { self.file = file }

  /// The head of a group; nil where there is none of these shapes.
  ///
  /// - Throws: ``CheckpointError``.
  public func head(of group: String, classes: Int, width: Int) throws -> Head? {
    guard fits(group, classes: classes, width: width) else { return nil }
    return (
      try file.tensor("\(group).\(Kind.weight.rawValue)"),
      try file.tensor("\(group).\(Kind.bias.rawValue)")
    )
  }

  /// Whether there is a head of a group of these shapes.
  public func fits(_ group: String, classes: Int, width: Int) -> Bool {
    Kind.allCases.allSatisfy { kind in
      let name = "\(group).\(kind.rawValue)"
      let shape = kind == .weight ? [classes, width] : [classes]
      return file.entry(name) == .init(name, .float32, shape)
    }
  }

  /// Writes the heads that a checkpoint's optimizer files hold.
  ///
  /// - Returns: the folders written, relative to the checkpoint's.
  /// - Throws: ``CheckpointError``.
  static func write(from states: CheckpointReader, to checkpoint: String) throws -> [String] {
    let begin = OptimizerNames.master("\(folder).\(patchClasses).")
    let heads = try states.names.filter { $0.hasPrefix(begin) }.map { name in
      (name: String(name.dropFirst(begin.count)), tensor: try states.tensor(name))
    }
    guard !heads.isEmpty else { return [] }
    try makeFolders("\(checkpoint)/\(folder)")
    try SafetensorsWriter.write(
      heads, to: "\(checkpoint)/\(folder)/\(patchClasses).safetensors")
    return [folder]
  }
}
