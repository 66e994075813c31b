import Synchronization
import Tensors

/// The weights in a model folder, in one file or in shards with an index that says what is where:
/// safetensors (`model.safetensors`, `model.safetensors.index.json`) or, where there are none,
/// PyTorch's archives (`pytorch_model.bin`, `pytorch_model.bin.index.json`).
///
/// A shard is opened when one of its tensors is asked for, so that a process which holds a slice
/// of a model needs, and maps, only the shards of that slice.
public final class CheckpointReader: Sendable {
  public let folder: String
  /// The shard of every tensor, by name.
  private let shardNames: [String: String]
  private let shards: Mutex<[String: any TensorFile]>

  static let indexName = "model.safetensors.index.json"
  private static let maximumIndexBytes = 64 << 20

  /// The names that a format's files have.
  private struct Naming {
    var single: String
    var index: String
    var suffix: String
  }

  private static let namings = [
    Naming(single: "model.safetensors", index: indexName, suffix: ".safetensors"),
    Naming(
      single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", suffix: ".bin"),
  ]

  /// - Throws: ``CheckpointError`` when the folder is missing, holds no weights, or its single
  ///   file or its index is not valid.
  public convenience init(folder: String) throws {
    try requireFolder(folder)
    for naming in CheckpointReader.namings {
      if fileExists("\(folder)/\(naming.single)") {
        try self.init(folder: folder, single: naming.single)
        return
      }
      if fileExists("\(folder)/\(naming.index)") {
        try self.init(folder: folder, index: naming.index, suffix: naming.suffix)
        return
      }
    }
    let isShard = { (name: String) in
      name.hasSuffix(".safetensors")
        || name.hasPrefix("pytorch_model-") && name.hasSuffix(".bin")
    }
    if folderEntries(folder).contains(where: isShard) {
      throw CheckpointError.missingIndex(folder: folder)
    }
    throw CheckpointError.noWeights(folder: folder)
  }

  /// The tensors of a single file: safetensors by its name, else one of PyTorch's archives.
  ///
  /// - Throws: ``CheckpointError`` when the file is missing or not valid.
  public convenience init(file path: String) throws {
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last.map { String($0) }
    try self.init(folder: parentFolder(of: path), single: name ?? path)
  }

  private init(folder: String, single name: String) throws {
    self.folder = folder
    let file = try CheckpointReader.open("\(folder)/\(name)")
    shardNames = Dictionary(file.names.map { ($0, name) }) { first, _ in first }
    shards = Mutex([name: file])
  }

  /// The tensors that an index spreads over files of its folder.
  init(folder: String, index: String, suffix: String = ".safetensors") throws {
    self.folder = folder
    shardNames = try CheckpointReader.readIndex("\(folder)/\(index)", suffix: suffix)
    shards = Mutex([:])
  }

  private static func open(_ path: String) throws -> any TensorFile {
    path.hasSuffix(".safetensors")
      ? try SafetensorsFile(path: path) : try TorchFile(path: path)
  }

  /// Names of the tensors, sorted.
  public var names: [String] { shardNames.keys.sorted() }

  public func contains(_ name: String) -> Bool { shardNames[name] != nil }

  /// A tensor of any type that ``ScalarType`` has, over the mapped shard where its bytes can be
  /// used as they lie there.
  ///
  /// - Throws: ``CheckpointError`` when there is no such tensor, it holds panels, or its shard is
  ///   not valid.
  public func tensor(_ name: String) throws -> Tensor {
    try floatShard(of: name).tensor(name, neededFor: nil)
  }

  /// A weight of a shape and of type float32 or bfloat16, over the mapped shard where its bytes
  /// can be used as they lie there.
  ///
  /// - Parameter neededFor: who asks, such as "this stage holds vision layers 0–8".
  /// - Throws: ``CheckpointError`` when there is no such tensor, it is of another shape or
  ///   type, or its shard is not valid.
  public func tensor(_ name: String, shape: [Int], neededFor: String) throws -> Tensor {
    try shard(of: name, neededFor: neededFor).tensor(name, shape: shape, neededFor: neededFor)
  }

  /// - Throws: what ``tensor(_:shape:neededFor:)`` throws.
  public func tensor(_ weight: Weight, neededFor: String) throws -> Tensor {
    try tensor(weight.name, shape: weight.shape, neededFor: neededFor)
  }

  /// The weight [N, K] of a linear layer or an embedding table as it is stored: rows of float32 or
  /// bfloat16, or panels. Both lie over the mapped shard where they can be used as they are there.
  ///
  /// - Throws: ``CheckpointError`` when there is no such weight, it is of another shape or type,
  ///   or its shard is not valid.
  public func matrix(_ weight: Weight, neededFor: String) throws -> LinearWeight {
    let file = try shard(of: weight.name, neededFor: neededFor)
    guard let layout = file.panelLayout(weight.name) else {
      return .rows(try file.tensor(weight.name, shape: weight.shape, neededFor: neededFor))
    }
    try CheckpointReader.require(layout, of: weight, in: file, neededFor: neededFor)
    return .panels(
      try PackedMatrix(
        layout.format, outputs: layout.outputs, depth: layout.depth,
        panels: file.tensor(weight.name, neededFor: neededFor)))
  }

  /// What a tensor is that holds panels, from its file's header alone; nil for one that does not.
  ///
  /// - Throws: ``CheckpointError`` when there is no such tensor, or its shard is not valid.
  public func panelLayout(_ name: String) throws -> PanelLayout? {
    try shard(of: name, neededFor: nil).panelLayout(name)
  }

  /// The shape and type that a tensor has when it is read, from its file's header alone.
  ///
  /// - Throws: ``CheckpointError`` when there is no such tensor, it holds panels, ``ScalarType``
  ///   does not have its type, or its shard is not valid.
  public func entry(_ name: String) throws -> SafetensorsWriter.Entry {
    let file = try floatShard(of: name)
    guard let entry = file.entry(name) else {
      throw CheckpointError.missingTensor(file: file.path, tensor: name, neededFor: nil)
    }
    return entry
  }

  /// Reads some of a tensor's bytes, as ``entry(_:)`` describes it, without mapping its shard.
  ///
  /// - Throws: ``CheckpointError``, also when the shard was cut meanwhile.
  func read(_ name: String, at offset: Int, into bytes: UnsafeMutableRawBufferPointer) throws {
    try floatShard(of: name).read(name, at: offset, into: bytes)
  }

  /// What the files that hold the tensors are: by name, with the index where there is one. Another
  /// answer later says that somebody changed one of them.
  ///
  /// - Throws: ``CheckpointError`` for one that cannot be opened.
  func fileIdentities() throws -> [String: String] {
    let indexes = CheckpointReader.namings.map(\.index).filter { fileExists("\(folder)/\($0)") }
    var identities: [String: String] = [:]
    for name in Set(shardNames.values).union(indexes) {
      identities[name] = "\(try OpenFile(reading: "\(folder)/\(name)").identity)"
    }
    return identities
  }

  /// Checks by the headers of all shards, without reading data, that every weight of the
  /// configuration is there in its shape.
  ///
  /// - Throws: ``CheckpointError`` for the first that is not.
  public func verify(_ configuration: ModelConfiguration) throws {
    for name in names { _ = try shard(of: name, neededFor: nil) }
    let reason = "config.json describes it"
    for weight in WeightNames.all(configuration) {
      let file = try shard(of: weight.name, neededFor: reason)
      if let layout = file.panelLayout(weight.name) {
        try CheckpointReader.require(layout, of: weight, in: file, neededFor: reason)
      } else {
        try file.requireWeight(weight.name, shape: weight.shape, neededFor: reason)
      }
    }
  }

  private static func require(
    _ layout: PanelLayout, of weight: Weight, in file: any TensorFile, neededFor: String
  ) throws {
    guard layout.shape == weight.shape else {
      throw CheckpointError.shapeMismatch(
        file: file.path, tensor: weight.name, expected: weight.shape, found: layout.shape,
        neededFor: neededFor)
    }
  }

  /// The shard of a tensor that does not hold panels.
  private func floatShard(of name: String) throws -> any TensorFile {
    let file = try shard(of: name, neededFor: nil)
    if let layout = file.panelLayout(name) {
      throw CheckpointError.packedWeight(file: file.path, tensor: name, layout: "\(layout)")
    }
    return file
  }

  private func shard(of name: String, neededFor: String?) throws -> any TensorFile {
    guard let shard = shardNames[name] else {
      throw CheckpointError.missingTensor(file: folder, tensor: name, neededFor: neededFor)
    }
    return try shards.withLock { shards in
      if let file = shards[shard] { return file }
      let file: any TensorFile
      do {
        file = try CheckpointReader.open("\(folder)/\(shard)")
      } catch CheckpointError.missingFile(let path) {
        throw CheckpointError.missingShard(file: path, tensor: name, neededFor: neededFor)
      }
      for other in file.names {
        if let owner = shardNames[other], owner != shard {
          throw CheckpointError.nameCollision(tensor: other, first: owner, second: shard)
        }
      }
      shards[shard] = file
      return file
    }
  }

  /// The file that an index, or a single file's header, gives for a tensor, within the folder.
  func fileName(of name: String) -> String? { shardNames[name] }

  /// The file of a tensor that is there.
  func path(of name: String) -> String { "\(folder)/\(shardNames[name] ?? "")" }

  /// The map from names to shards.
  private static func readIndex(
    _ path: String, suffix: String
  ) throws -> [String: String] {
    var shardNames: [String: String]?
    let bytes = try readFile(path, limit: maximumIndexBytes)
    try bytes.withUnsafeBytes { bytes in
      var scanner = JSONScanner(bytes, file: path)
      try scanner.object { scanner, key in
        guard key == "weight_map" else { return try scanner.skipValue() }
        var names: [String: String] = [:]
        try scanner.object { scanner, tensor in
          let shard = try scanner.string()
          guard isShardName(shard, suffix) else {
            throw CheckpointError.invalidShardName(file: path, tensor: tensor, shard: shard)
          }
          names[tensor] = shard
        }
        shardNames = names
      }
      try scanner.expectEnd()
    }
    guard let shardNames else {
      throw CheckpointError.missingKey(file: path, key: "weight_map")
    }
    return shardNames
  }

  private static func isShardName(_ name: String, _ suffix: String) -> Bool {
    name.hasSuffix(suffix) && name.utf8.count <= 255 && !name.hasPrefix(".")
      && !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") || $0 == 0 }
  }
}
