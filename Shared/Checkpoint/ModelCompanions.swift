import Tensors

/// The files beside the weights of a model folder.
enum ModelCompanions {
  private static let maximumBytes = 64 << 20
  private static let suffixes = [".json", ".model", ".py", ".txt", ".jinja"]
  /// What says something of the weights' files, or of a run that the folder came from.
  private static let ownFiles: Set<String> = [
    "config.json", CheckpointManifest.fileName, TrainerState.fileName, TrainerState.runFileName,
    ResumableFolder.journalName,
  ]

  /// Names of the files that come along, whatever they hold.
  private static func names(in source: String) -> [String] {
    folderEntries(source).filter { name in
      suffixes.contains { name.hasSuffix($0) } && !name.hasSuffix(".index.json")
        && !name.hasPrefix(".") && !ownFiles.contains(name) && !isFolder("\(source)/\(name)")
    }
  }

  /// Finds out before the work whether ``copy(from:to:torchType:)`` could read all files.
  ///
  /// - Throws: ``CheckpointError`` for one that cannot be opened or is too large.
  static func check(_ source: String) throws {
    for name in names(in: source) { try check(OpenFile(reading: "\(source)/\(name)")) }
  }

  private static func check(_ file: borrowing OpenFile) throws {
    guard file.byteCount <= maximumBytes else {
      throw CheckpointError.tooLarge(
        file: file.path, byteCount: file.byteCount, limit: maximumBytes)
    }
  }

  /// Copies tokenizer, preprocessor, generation configuration and the reference's modeling code,
  /// and config.json, with another `torch_dtype` if one is given.
  ///
  /// - Throws: ``CheckpointError``, also when one of them cannot be read.
  static func copy(from source: String, to folder: String, torchType: ScalarType?) throws {
    for name in names(in: source) {
      try AtomicFile.write(
        readFile("\(source)/\(name)", limit: maximumBytes), to: "\(folder)/\(name)")
    }
    let path = "\(source)/config.json"
    let bytes = try readFile(path, limit: Limits.configurationBytes)
    let changed = try torchType.map { try configuration(bytes, torchType: $0, file: path) }
    try AtomicFile.write(changed ?? bytes, to: "\(folder)/config.json")
  }

  /// config.json with another `torch_dtype`, at the top and in the parts' objects where it is;
  /// the same bytes when it says so already.
  private static func configuration(
    _ bytes: [UInt8], torchType: ScalarType, file: String
  ) throws -> [UInt8] {
    guard case .object(var members) = try JSONValue.parse(bytes, file: file) else {
      throw CheckpointError.wrongType(file: file, key: "the whole", expected: "an object")
    }
    var isChanged = false
    func set(_ members: inout [(String, JSONValue)]) {
      for index in members.indices where members[index].0 == "torch_dtype" {
        if case .string(torchType.rawValue) = members[index].1 { continue }
        members[index].1 = .string(torchType.rawValue)
        isChanged = true
      }
    }
    if !members.contains(where: { $0.0 == "torch_dtype" }) {
      members.append(("torch_dtype", .null))
    }
    set(&members)
    for index in members.indices where members[index].0.hasSuffix("_config") {
      guard case .object(var part) = members[index].1 else { continue }
      set(&part)
      members[index].1 = .object(part)
    }
    return isChanged ? Array(JSONValue.object(members).text.utf8) : bytes
  }
}
