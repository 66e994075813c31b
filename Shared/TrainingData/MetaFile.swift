import Checkpoint

/// A meta file: which annotation files make up the training data (`--meta_path` of InternVL).
///
/// A JSON object of data sets by name. Of each, `root` and `annotation` are paths, absolute or
/// from the meta file's folder or, where there is no such file, from the working folder.
public struct MetaFile: Sendable, Equatable {
  static let maximumBytes = 16 << 20

  public struct Dataset: Sendable, Equatable {
    public var name: String
    /// Folders that pictures are looked for in, in this order.
    public var roots: [String]
    public var annotation: String
    /// Reference: pictures are degraded at random. Chiasm takes them as they are.
    public var dataAugment = false
    /// From 1 on how many times each sample counts; below, the leading fraction that counts.
    public var repeatTime = 1.0
    /// How many samples there should be.
    public var length: Int?
    /// Tiles of a picture at most, where the model cuts pictures into tiles.
    public var maxDynamicPatch: Int?

    /// How many of the first `lines` lines count, and how many times.
    public func repetition(ofLines lines: Int) -> (kept: Int, times: Int) {
      repeatTime < 1 ? (Int(Double(lines) * repeatTime), 1) : (lines, Int(repeatTime))
    }
  }

  public let path: String
  public let datasets: [Dataset]

  /// - Throws: ``TrainingDataError``.
  public init(path: String) throws {
    let bytes: [UInt8]
    do {
      let file = try DataFile(path)
      guard file.byteCount <= MetaFile.maximumBytes else {
        throw TrainingDataError.oversizedFile(
          path: path, found: file.byteCount, limit: MetaFile.maximumBytes, unit: "bytes")
      }
      bytes = try file.bytes(at: 0, count: file.byteCount)
    } catch DataFile.Failure.missing {
      throw TrainingDataError.unreadableFile(path: path, reason: "there is no such file")
    } catch DataFile.Failure.unreadable(let reason) {
      throw TrainingDataError.unreadableFile(path: path, reason: reason)
    }
    try self.init(bytes, path: path)
  }

  /// A single annotation file, whose pictures are found from its folder.
  public init(annotation path: String) {
    self.path = path
    datasets = [
      Dataset(name: "samples", roots: [DataFile.folder(of: path)], annotation: path)
    ]
  }

  /// - Parameter path: where `bytes` were read: what errors name, and relative paths begin at.
  /// - Throws: ``TrainingDataError``.
  init(_ bytes: [UInt8], path: String) throws {
    self.path = path
    do {
      datasets = try bytes.withUnsafeBytes { bytes in
        var scanner = JSONScanner(bytes, file: path)
        var datasets: [Dataset] = []
        try scanner.object { scanner, name in
          datasets.append(try MetaFile.dataset(name, &scanner, path))
        }
        try scanner.expectEnd()
        return datasets
      }
    } catch CheckpointError.invalidJSON(_, let offset, let reason) {
      let before = bytes.prefix(offset)
      let line = before.count { $0 == 0x0A } + 1
      let column = offset - (before.lastIndex(of: 0x0A) ?? -1)
      throw TrainingDataError.invalidMeta(
        path: path, line: line, column: column, reason: reason)
    } catch CheckpointError.duplicateName(_, let name) {
      throw TrainingDataError.invalidKey(
        path: path, dataset: name, key: "name", found: "there twice", expected: "each once")
    }
    guard !datasets.isEmpty else { throw TrainingDataError.noSamples(path: path) }
  }

  private static func dataset(
    _ name: String, _ scanner: inout JSONScanner, _ path: String
  ) throws -> Dataset {
    func invalid(_ key: String, _ value: JSONValue, _ expected: String) -> TrainingDataError {
      .invalidKey(
        path: path, dataset: name, key: key, found: value.compactText, expected: expected)
    }
    guard case .object(let members) = try scanner.value() else {
      throw scanner.failure("the data set \(Clip.text(name)) is no object")
    }
    var root: String?
    var annotation: String?
    var dataset = Dataset(name: name, roots: [], annotation: "")
    for (key, value) in members {
      switch (key, value) {
      case (_, .null): continue
      case ("root", .string(let text)): root = text
      case ("annotation", .string(let text)):
        guard text.hasSuffix(".jsonl") else {
          throw invalid(key, value, "a file with the ending .jsonl, one sample a line")
        }
        annotation = text
      case ("data_augment", .boolean(let flag)): dataset.dataAugment = flag
      case ("repeat_time", .integer(let times)) where (1...10_000).contains(times):
        dataset.repeatTime = Double(times)
      case ("repeat_time", .number(let times))
      where times > 0 && (times < 1 || times <= 10_000 && times == times.rounded()):
        dataset.repeatTime = times
      case ("length", .integer(let count)) where count >= 0: dataset.length = count
      case ("max_dynamic_patch", .integer(let count)) where (1...256).contains(count):
        dataset.maxDynamicPatch = count
      case ("root", _), ("annotation", _): throw invalid(key, value, "a path")
      case ("data_augment", _): throw invalid(key, value, "true or false")
      case ("repeat_time", _):
        throw invalid(key, value, "a whole number from 1 to 10000, or a fraction below 1")
      case ("length", _): throw invalid(key, value, "the number of samples")
      case ("max_dynamic_patch", _): throw invalid(key, value, "a number from 1 to 256")
      default: continue
      }
    }
    guard let annotation else {
      throw TrainingDataError.missingKey(path: path, dataset: name, key: "annotation")
    }
    let folder = DataFile.folder(of: path)
    let places = candidates(annotation, folder)
    guard let found = places.first(where: DataFile.exists) else {
      throw TrainingDataError.missingAnnotation(path: path, dataset: name, places: places)
    }
    dataset.annotation = found
    let roots = candidates(root ?? "", folder)
    let existing = roots.filter { $0.isEmpty || DataFile.exists($0) }
    dataset.roots = existing.isEmpty ? roots : existing
    return dataset
  }

  private static func candidates(_ path: String, _ folder: String) -> [String] {
    path.hasPrefix("/") || folder == "." ? [path] : [DataFile.join(folder, path), path]
  }
}
