import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Brings a checkpoint about, together with the stages: it makes a folder `tmp-checkpoint-<step>`
/// for their files, and when these are there, writes the rest beside them and gives the folder
/// its name.
///
/// Until ``commit(state:saveType:digests:)`` has put everything on disk, no folder has the
/// checkpoint's name, and those of older checkpoints stay as they are. A writer that is let go
/// without leaves nothing.
public final class CheckpointWriter: Sendable {
  /// Where stages write, by the paths of the layout.
  public let folder: String
  /// What the folder will be called.
  public let destination: String
  public let step: Int
  public let layout: CheckpointLayout
  private let source: CheckpointReader
  private let lock: FolderLock
  private let isCommitted = Atomic(false)

  /// What the small files beside the weights may take.
  private static let slack = 32 << 20

  /// Begins `checkpoint-<step>` in a run's folder, which is made if it does not exist, and removes
  /// what writers before left there unfinished.
  ///
  /// - Parameter source: the model the run began with, not an older checkpoint of it, which may be
  ///   deleted meanwhile.
  /// - Throws: ``CheckpointError/noRoom(folder:needed:free:)``,
  ///   ``CheckpointError/beingWritten(folder:)``,
  ///   ``CheckpointError/unwritable(file:reason:)``.
  public static func begin(
    output: String, step: Int, layout: CheckpointLayout, source: CheckpointReader
  ) throws -> CheckpointWriter {
    try makeFolders(output)
    CheckpointFolder.removeStale(in: output)
    return try CheckpointWriter(
      parent: output, name: "\(CheckpointFolder.prefix)\(step)", step: step, layout: layout,
      source: source)
  }

  /// Begins a model folder of any name, which does not exist yet or is empty.
  ///
  /// - Throws: what ``begin(output:step:layout:source:)`` throws, and
  ///   ``CheckpointError/folderInUse(folder:file:)``.
  public static func begin(
    export path: String, layout: CheckpointLayout, source: CheckpointReader
  ) throws -> CheckpointWriter {
    var path = path
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    if let file = folderEntries(path).first {
      throw CheckpointError.folderInUse(folder: path, file: file)
    }
    let name = path.split(separator: "/").last.map { String($0) } ?? path
    try makeFolders(parentFolder(of: path))
    return try CheckpointWriter(
      parent: parentFolder(of: path), name: name, step: 0, layout: layout, source: source)
  }

  private init(
    parent: String, name: String, step: Int, layout: CheckpointLayout, source: CheckpointReader
  ) throws {
    let needed = layout.byteCount + CheckpointWriter.slack
    if let free = freeBytes(in: parent), needed > free {
      throw CheckpointError.noRoom(folder: parent, needed: needed, free: free)
    }
    let folder = "\(parent)/\(CheckpointFolder.temporaryPrefix)\(name)"
    if mkdir(folder, 0o755) != 0, errno != EEXIST {
      throw CheckpointError.unwritable(file: folder, reason: systemReason())
    }
    guard let lock = FolderLock(folder) else {
      throw CheckpointError.beingWritten(folder: folder)
    }
    self.folder = folder
    self.destination = "\(parent)/\(name)"
    self.step = step
    self.layout = layout
    self.source = source
    self.lock = lock
    for entry in folderEntries(folder) {
      let path = "\(folder)/\(entry)"
      if unlink(path) != 0 { removeFolder(path) }
    }
    if !layout.optimizerFiles.isEmpty {
      try makeFolders("\(folder)/\(OptimizerNames.folder)")
    }
  }

  deinit { if !isCommitted.load(ordering: .relaxed) { removeFolder(folder) } }

  /// Checks the stages' files against the layout, writes what only the gateway has, flushes
  /// everything, and gives the folder its name. A checkpoint that has it already is replaced.
  ///
  /// - Parameters:
  ///   - state: nil for an export.
  ///   - saveType: what the layout was made with: config.json says so.
  ///   - digests: false: the manifest has the sizes of the files alone; making digests reads
  ///     every byte again.
  /// - Throws: ``CheckpointError``: a file of a stage is missing or holds something else, or the
  ///   rest cannot be written.
  public func commit(
    state: TrainerState?, saveType: ScalarType? = nil, digests: Bool = true
  ) throws -> CheckpointFolder {
    precondition(!isCommitted.load(ordering: .relaxed), "\(destination) was committed before")
    for file in layout.copied { try copy(file) }
    for file in layout.modelFiles { try requireEntries(of: file) }
    try writeIndexes()
    try ModelCompanions.copy(from: source.folder, to: folder, torchType: saveType)
    if let state {
      for (name, bytes) in state.files { try AtomicFile.write(bytes, to: "\(folder)/\(name)") }
      let manifest = try CheckpointManifest(step: step, files: writtenFiles(digests))
      try AtomicFile.write(
        Array(manifest.json.text.utf8), to: "\(folder)/\(CheckpointManifest.fileName)")
    }
    flushFolder("\(folder)/\(OptimizerNames.folder)")
    flushFolder(folder)
    try takeName()
    return CheckpointFolder(path: destination, step: step)
  }

  /// Ends the attempt. Stages that still write fail: their folder is gone.
  public func abandon() {
    if !isCommitted.load(ordering: .relaxed) { removeFolder(folder) }
  }

  // MARK: Private

  private func copy(_ file: CheckpointLayout.File) throws {
    let writer = try SafetensorsWriter(path: "\(folder)/\(file.path)", entries: file.entries)
    for entry in file.entries {
      let tensor = try source.tensor(
        entry.name, shape: entry.shape, neededFor: "a checkpoint holds the whole model")
      try ShardFile.write(tensor, as: entry.name, entry.scalarType, to: writer)
    }
    try writer.commit()
  }

  private func requireEntries(of file: CheckpointLayout.File) throws {
    let found = try SafetensorsFile(path: "\(folder)/\(file.path)")
    for entry in file.entries { try CheckpointWriter.require(entry, in: found) }
  }

  private static func require(
    _ entry: SafetensorsWriter.Entry, in file: SafetensorsFile
  ) throws {
    guard let found = file.entry(entry.name) else {
      throw CheckpointError.missingTensor(
        file: file.path, tensor: entry.name, neededFor: "a checkpoint holds the whole model")
    }
    guard found == entry else {
      throw CheckpointError.unexpectedTensor(
        file: file.path, tensor: entry.name,
        expected: "\(entry.scalarType) \(entry.shape)",
        found: "\(found.scalarType) \(found.shape)")
    }
  }

  private func writeIndexes() throws {
    let models = layout.modelFiles.map { (name: $0.path, entries: $0.entries) }
    if models.count > 1 {
      try ShardPlan.writeIndex(models, to: "\(folder)/\(CheckpointReader.indexName)")
    }
    // Which masters a stage wrote is its own to know.
    let optimizers = try layout.optimizerFiles.map { file in
      let found = try SafetensorsFile(path: "\(folder)/\(file.path)")
      for entry in file.entries { try CheckpointWriter.require(entry, in: found) }
      let name = file.path.dropFirst(OptimizerNames.folder.count + 1)
      return (name: String(name), entries: found.names.compactMap { found.entry($0) })
    }
    guard !optimizers.isEmpty else { return }
    try ShardPlan.writeIndex(
      optimizers, to: "\(folder)/\(OptimizerNames.folder)/\(OptimizerNames.index)")
  }

  private func writtenFiles(_ digests: Bool) throws -> [CheckpointManifest.File] {
    let top = folderEntries(folder).filter { $0 != OptimizerNames.folder }
    let below = folderEntries("\(folder)/\(OptimizerNames.folder)")
      .map { "\(OptimizerNames.folder)/\($0)" }
    return try (top + below).map { name in
      let path = "\(folder)/\(name)"
      let file = try OpenFile(reading: path)
      return CheckpointManifest.File(
        path: name, byteCount: file.byteCount,
        digest: digests ? try Digest.sha256(file: path) : nil)
    }
  }

  private func takeName() throws {
    let parent = parentFolder(of: destination)
    // An empty folder, as an export's may be, is replaced by the rename itself.
    if rename(folder, destination) != 0 {
      guard errno == ENOTEMPTY || errno == EEXIST else {
        throw CheckpointError.unwritable(file: destination, reason: systemReason())
      }
      try replace()
    }
    isCommitted.store(true, ordering: .relaxed)
    flushFolder(parent)
  }

  /// Puts the new folder in the old one's place, which goes when the new one is there.
  private func replace() throws {
    let old = CheckpointFolder.deletedPath(of: destination)
    removeFolder(old)
    guard rename(destination, old) == 0, rename(folder, destination) == 0 else {
      let reason = systemReason()
      rename(old, destination)
      throw CheckpointError.unwritable(file: destination, reason: reason)
    }
    removeFolder(old)
  }
}
