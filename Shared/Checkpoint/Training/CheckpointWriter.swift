import Tensors

/// Brings a checkpoint about, together with the stages: it makes a folder `tmp-checkpoint-<step>`
/// for their files, and when these are there, writes the rest beside them and gives the folder
/// its name.
///
/// Until ``commit(state:saveType:digests:isCancelled:)`` has put everything on disk, no folder has the
/// checkpoint's name, and those of older checkpoints stay as they are. A writer that is let go
/// without leaves nothing.
public final class CheckpointWriter: Sendable {
  /// Where stages write, by the paths of the layout.
  public var folder: String { target.path }
  /// What the folder will be called.
  public var destination: String { target.destination }
  public let step: Int
  public let layout: CheckpointLayout
  private let source: CheckpointReader
  private let target: AtomicFolder
  private let isExport: Bool

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
    try requireRoom(for: layout, in: output)
    let name = "\(CheckpointFolder.prefix)\(step)"
    let target = try AtomicFolder(
      "\(output)/\(name)", filledAt: "\(output)/\(CheckpointFolder.temporaryPrefix)\(name)")
    return try CheckpointWriter(
      target, isExport: false, step: step, layout: layout, source: source)
  }

  /// Begins a model folder of any name, which does not exist yet or is empty.
  ///
  /// - Throws: what ``begin(output:step:layout:source:)`` throws, and
  ///   ``CheckpointError/folderInUse(folder:file:)``.
  public static func begin(
    export path: String, layout: CheckpointLayout, source: CheckpointReader
  ) throws -> CheckpointWriter {
    let parent = parentFolder(of: withoutTrailingSlashes(path))
    try makeFolders(parent)
    try requireRoom(for: layout, in: parent)
    return try CheckpointWriter(
      AtomicFolder(new: path), isExport: true, step: 0, layout: layout, source: source)
  }

  private static func requireRoom(for layout: CheckpointLayout, in parent: String) throws {
    let needed = layout.byteCount + slack
    if let free = freeBytes(in: parent), needed > free {
      throw CheckpointError.noRoom(folder: parent, needed: needed, free: free)
    }
  }

  private init(
    _ target: AtomicFolder, isExport: Bool, step: Int, layout: CheckpointLayout,
    source: CheckpointReader
  ) throws {
    self.target = target
    self.isExport = isExport
    self.step = step
    self.layout = layout
    self.source = source
    try ModelCompanions.check(source.folder)
    if !layout.optimizerFiles.isEmpty {
      try makeFolder("\(folder)/\(OptimizerNames.folder)")
    }
  }

  /// Checks the stages' files against the layout, writes what only the gateway has, flushes
  /// everything, and gives the folder its name. A checkpoint that has it already is replaced.
  ///
  /// - Parameters:
  ///   - state: nil for an export.
  ///   - saveType: what the layout was made with: config.json says so.
  ///   - adapters: parts whose adapters the optimizer's files hold; `adapter/PART` has them alone.
  ///   - digests: false: the manifest has the sizes of the files alone; making digests reads
  ///     every byte again, of as many files at a time as there are cores.
  ///   - isCancelled: asked before every piece of work, from several threads.
  /// - Throws: ``CheckpointError``: a file of a stage is missing or holds something else, or the
  ///   rest cannot be written; `CancellationError`.
  public func commit(
    state: TrainerState?, saveType: ScalarType? = nil, adapters: [AdapterFolder] = [],
    digests: Bool = true, isCancelled: @Sendable () -> Bool = { false }
  ) throws -> CheckpointFolder {
    for file in layout.copied { try copy(file, isCancelled) }
    for file in layout.modelFiles { try requireEntries(of: file) }
    try writeIndexes()
    let adapterFolders = try write(adapters) + writeObjectives(isExport: state == nil)
    try ModelCompanions.copy(from: source.folder, to: folder, torchType: saveType)
    if let state {
      for (name, bytes) in state.files { try AtomicFile.write(bytes, to: "\(folder)/\(name)") }
      let manifest = try CheckpointManifest(
        step: step,
        files: writtenFiles([OptimizerNames.folder] + adapterFolders, digests, isCancelled))
      try AtomicFile.write(
        Array(manifest.json.text.utf8), to: "\(folder)/\(CheckpointManifest.fileName)")
    }
    for name in [OptimizerNames.folder, AdapterFolder.folder] + adapterFolders {
      flushFolder("\(folder)/\(name)")
    }
    if isCancelled() { throw CancellationError() }
    try target.commit(replacing: !isExport)
    return CheckpointFolder(path: destination, step: step)
  }

  /// Ends the attempt. Stages that still write fail: their folder is gone.
  public func abandon() { target.abandon() }

  // MARK: Private

  private func copy(
    _ file: CheckpointLayout.File, _ isCancelled: @Sendable () -> Bool
  ) throws {
    let writer = try SafetensorsWriter(path: "\(folder)/\(file.path)", entries: file.entries)
    for entry in file.entries {
      if isCancelled() { throw CancellationError() }
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

  /// - Returns: the folders, relative to the checkpoint's.
  private func write(_ adapters: [AdapterFolder]) throws -> [String] {
    guard !adapters.isEmpty else { return [] }
    let states = try CheckpointReader(
      folder: "\(folder)/\(OptimizerNames.folder)", index: OptimizerNames.index)
    return try adapters.map { adapter in
      let begin = OptimizerNames.master("\(adapter.part).base_model.")
      let masters = try states.names.filter { $0.hasPrefix(begin) }.map { name in
        (
          name: String(name.dropFirst(OptimizerNames.master("").count)),
          tensor: try states.tensor(name)
        )
      }
      let path = "\(AdapterFolder.folder)/\(adapter.part)"
      try adapter.write(masters, to: "\(folder)/\(path)")
      return path
    }
  }

  /// - Returns: the folders, relative to the checkpoint's.
  private func writeObjectives(isExport: Bool) throws -> [String] {
    guard !isExport, !layout.optimizerFiles.isEmpty else { return [] }
    return try ObjectivesFolder.write(
      from: CheckpointReader(
        folder: "\(folder)/\(OptimizerNames.folder)", index: OptimizerNames.index),
      to: folder)
  }

  /// - Parameter below: the folders below that hold files.
  private func writtenFiles(
    _ below: [String], _ digests: Bool, _ isCancelled: @Sendable () -> Bool
  ) throws -> [CheckpointManifest.File] {
    let names = ([""] + below.map { "\($0)/" }).flatMap { prefix in
      folderEntries("\(folder)/\(prefix)").map { "\(prefix)\($0)" }
    }
    var files = try names.filter { !isFolder("\(folder)/\($0)") }.map { name in
      CheckpointManifest.File(
        path: name, byteCount: try OpenFile(reading: "\(folder)/\(name)").byteCount, digest: nil)
    }
    guard digests else { return files }
    let found = try Digest.sha256(
      files: files.map { "\(folder)/\($0.path)" }, isCancelled: isCancelled)
    for index in files.indices { files[index].digest = found[index] }
    return files
  }
}
