/// How the tensors of a model are spread over files, as the reference's library names them:
/// `model.safetensors` when one is enough, else `model-00001-of-0000n.safetensors` and an index.
public struct ShardPlan: Sendable {
  public struct Shard: Sendable {
    public var fileName: String
    public var entries: [SafetensorsWriter.Entry]

    public var byteCount: Int { entries.reduce(0) { $0 + $1.byteCount } }
  }

  public let shards: [Shard]

  /// Fills shard after shard, each with as many of the next tensors as `shardBytes` hold, and
  /// with one at least.
  public init(_ entries: [SafetensorsWriter.Entry], shardBytes: Int) {
    let groups = ShardPlan.groups(entries, shardBytes: shardBytes)
    shards = groups.enumerated().map { index, entries in
      Shard(
        fileName: ShardPlan.fileName("model", index, of: groups.count), entries: entries)
    }
  }

  static func groups(
    _ entries: [SafetensorsWriter.Entry], shardBytes: Int
  ) -> [[SafetensorsWriter.Entry]] {
    var groups: [[SafetensorsWriter.Entry]] = []
    var room = 0
    for entry in entries {
      if groups.isEmpty || entry.byteCount > room {
        groups.append([])
        room = shardBytes
      }
      groups[groups.count - 1].append(entry)
      room -= entry.byteCount
    }
    return groups
  }

  /// - Parameter index: counted from 0.
  static func fileName(_ kind: String, _ index: Int, of count: Int) -> String {
    count == 1
      ? "\(kind).safetensors" : "\(kind)-\(padded(index + 1))-of-\(padded(count)).safetensors"
  }

  /// Writes `model.safetensors.index.json`, if there is more than one shard. Written last, it
  /// makes the shards a model.
  ///
  /// - Throws: ``CheckpointError`` when the file cannot be written.
  public func writeIndex(to folder: String) throws {
    guard shards.count > 1 else { return }
    try ShardPlan.writeIndex(
      shards.map { ($0.fileName, $0.entries) }, to: "\(folder)/\(CheckpointReader.indexName)")
  }

  static func writeIndex(
    _ files: [(name: String, entries: [SafetensorsWriter.Entry])], to path: String
  ) throws {
    let map = files.flatMap { file in
      file.entries.map { ($0.name, JSONValue.string(file.name)) }
    }
    let total = files.reduce(0) { $0 + $1.entries.reduce(0) { $0 + $1.byteCount } }
    let index = JSONValue.object([
      ("metadata", .object([("total_size", .integer(total))])),
      ("weight_map", .object(map.sorted { $0.0 < $1.0 })),
    ])
    try AtomicFile.write(Array(index.text.utf8), to: path)
  }
}

private func padded(_ number: Int) -> String {
  let digits = "\(number)"
  return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
}
