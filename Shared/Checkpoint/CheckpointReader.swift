import Synchronization
import Tensors

/// The weights in a model folder: `model.safetensors`, or shards with
/// `model.safetensors.index.json`.
///
/// A shard is opened when one of its tensors is asked for, so that a process which holds a slice
/// of a model needs, and maps, only the shards of that slice.
public final class CheckpointReader: Sendable {
  public let folder: String
  /// The shard of every tensor, by name.
  private let shardNames: [String: String]
  private let shards: Mutex<[String: SafetensorsFile]>

  private static let singleName = "model.safetensors"
  static let indexName = "model.safetensors.index.json"
  private static let maximumIndexBytes = 64 << 20

  /// - Throws: ``CheckpointError`` when the folder is missing, holds no safetensors weights, or
  ///   its single file's header or its index is not valid.
  public init(folder: String) throws {
    try requireFolder(folder)
    self.folder = folder
    let single = "\(folder)/\(CheckpointReader.singleName)"
    let index = "\(folder)/\(CheckpointReader.indexName)"
    if fileExists(single) {
      let file = try SafetensorsFile(path: single)
      shardNames = Dictionary(
        uniqueKeysWithValues: file.names.map { ($0, CheckpointReader.singleName) })
      shards = Mutex([CheckpointReader.singleName: file])
    } else if fileExists(index) {
      shardNames = try CheckpointReader.readIndex(index)
      shards = Mutex([:])
    } else if folderEntries(folder).contains(where: { $0.hasSuffix(".safetensors") }) {
      throw CheckpointError.missingIndex(folder: folder)
    } else {
      throw CheckpointError.noWeights(folder: folder)
    }
  }

  /// Names of the tensors, sorted.
  public var names: [String] { shardNames.keys.sorted() }

  public func contains(_ name: String) -> Bool { shardNames[name] != nil }

  /// A tensor of any type that ``ScalarType`` has, over the mapped shard.
  ///
  /// - Throws: ``CheckpointError`` when there is no such tensor or its shard is not valid.
  public func tensor(_ name: String) throws -> Tensor {
    try shard(of: name, neededFor: nil).tensor(name)
  }

  /// A weight of a shape and of type float32 or bfloat16, over the mapped shard.
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

  /// Checks by the headers of all shards, without reading data, that every weight of the
  /// configuration is there in its shape.
  ///
  /// - Throws: ``CheckpointError`` for the first that is not.
  public func verify(_ configuration: ModelConfiguration) throws {
    for name in names { _ = try shard(of: name, neededFor: nil) }
    let reason = "config.json describes it"
    for weight in WeightNames.all(configuration) {
      try shard(of: weight.name, neededFor: reason)
        .requireWeight(weight.name, shape: weight.shape, neededFor: reason)
    }
  }

  private func shard(of name: String, neededFor: String?) throws -> SafetensorsFile {
    guard let shard = shardNames[name] else {
      throw CheckpointError.missingTensor(file: folder, tensor: name, neededFor: neededFor)
    }
    return try shards.withLock { shards in
      if let file = shards[shard] { return file }
      let file: SafetensorsFile
      do {
        file = try SafetensorsFile(path: "\(folder)/\(shard)")
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

  /// The map from names to shards.
  private static func readIndex(_ path: String) throws -> [String: String] {
    var shardNames: [String: String]?
    let bytes = try readFile(path, limit: maximumIndexBytes)
    try bytes.withUnsafeBytes { bytes in
      var scanner = JSONScanner(bytes, file: path)
      try scanner.object { scanner, key in
        guard key == "weight_map" else { return try scanner.skipValue() }
        var names: [String: String] = [:]
        try scanner.object { scanner, tensor in
          let shard = try scanner.string()
          guard isShardName(shard) else {
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

  private static func isShardName(_ name: String) -> Bool {
    name.hasSuffix(".safetensors") && name.utf8.count <= 255 && !name.hasPrefix(".")
      && !name.utf8.contains { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "\\") || $0 == 0 }
  }
}
