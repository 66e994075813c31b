import Checkpoint
import InternVL
import Messages
import Tensors
import Threads
import Transport

/// A stage's share of a checkpoint, as it was at one moment.
///
/// Frozen tensors are the mapped ones; of what is trained it has copies: value and two moments of
/// every parameter. Adapters are added to their products while these are written.
struct TrainingSnapshot: Sendable {
  private struct File: Sendable {
    let path: String
    let items: [ShardFile.Item]
  }

  /// Held beside the stage's own until all is written.
  private(set) var copiedBytes = 0
  private var files: [File] = []
  private var optimizer: (path: String, states: [ShardFile.State])?

  /// - Throws: NOT_FOUND for a tensor that the stage does not have, INVALID_ARGUMENT for a path
  ///   that leads out of the folder, OUT_OF_RANGE when the parameters are older or newer than
  ///   asked for.
  init(_ stage: TrainedStage, _ parameters: [Parameter], _ request: SaveRequest) throws {
    if let updates = request.updates, updates != stage.updates {
      throw RPCError(
        .outOfRange,
        "a checkpoint after \(updates) updates was asked for, these parameters have seen "
          + "\(stage.updates)")
    }
    if let type = request.scalarType, type != .float32 && type != .bfloat16 {
      throw RPCError(.invalidArgument, "weights are not saved as \(type)")
    }
    let held = Dictionary(stage.tensors.map { ($0.name, $0) }) { first, _ in first }
    let trained = Dictionary(parameters.map { ($0.name, $0) }) { first, _ in first }
    var copies: [String: Tensor] = [:]
    var copiedBytes = 0
    func fresh(_ tensor: Tensor) -> Tensor {
      copiedBytes += tensor.byteCount
      return tensor.onHeap()
    }
    func copy(_ name: String, _ value: Tensor) -> Tensor {
      if let copy = copies[name] { return copy }
      let copy = fresh(value)
      copies[name] = copy
      return copy
    }
    var exact: Set<String> = []
    for file in request.model {
      let items: [ShardFile.Item] = try file.names.map { name in
        guard let tensor = held[name] else {
          throw RPCError(.notFound, "this stage holds no tensor \(name)")
        }
        let type = request.scalarType ?? tensor.storedType
        if let parameter = trained[name] {
          if type == .float32 { exact.insert(name) }
          return (name, copy(name, parameter.value), type)
        }
        let merged = request.mergeLoRA ? tensor.merged(copy) : nil
        return (name, merged ?? tensor.tensor as any TensorSource, type)
      }
      files.append(File(path: try TrainingSnapshot.path(file.path, request), items: items))
    }
    if let path = request.optimizerPath {
      let states: [ShardFile.State] = parameters.map { parameter in
        let name = parameter.name
        return (
          name, exact.contains(name) ? nil : copy(name, parameter.value),
          fresh(parameter.firstMoment), fresh(parameter.secondMoment)
        )
      }
      optimizer = (try TrainingSnapshot.path(path, request), states)
    }
    self.copiedBytes = copiedBytes
  }

  private static func path(_ path: String, _ request: SaveRequest) throws -> String {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard request.folder.hasPrefix("/"),
      !parts.contains(where: { $0.isEmpty || $0 == "." || $0 == ".." })
    else {
      throw RPCError(
        .invalidArgument,
        "\"\(path)\" in \"\(request.folder)\": expected an absolute folder, and a path inside it")
    }
    return "\(request.folder)/\(path)"
  }

  /// Writes and syncs all files.
  ///
  /// - Returns: bytes written.
  /// - Throws: `CheckpointError`; `CancellationError` between files.
  func write(_ flag: CancellationFlag = CancellationFlag()) throws -> Int {
    var bytes = 0
    for file in files {
      if flag.isCancelled { throw CancellationError() }
      bytes += try ShardFile.write(file.items, to: file.path)
    }
    if let optimizer {
      if flag.isCancelled { throw CancellationError() }
      bytes += try ShardFile.write(optimizer.states, to: optimizer.path)
    }
    return bytes
  }
}
