import Tensors

/// Which files a checkpoint consists of, and which stage of a mesh writes which of them.
///
/// Files of weights are numbered over all stages, in the order of the stages, then of the
/// parameters; what no stage holds, such as vision layers behind `select_layer`, goes into files
/// that the gateway copies from the model the run began with.
public struct CheckpointLayout: Sendable, Equatable {
  /// A tensor that a stage holds.
  public struct Held: Sendable, Equatable {
    /// Its name in the release; adapters have names of their own, which no release knows.
    public var name: String
    public var shape: [Int]
    /// How the model stores it.
    public var storedType: ScalarType
    public var isTrained: Bool

    public init(name: String, shape: [Int], storedType: ScalarType, isTrained: Bool) {
      self.name = name
      self.shape = shape
      self.storedType = storedType
      self.isTrained = isTrained
    }
  }

  public struct File: Sendable, Equatable {
    /// Relative to the checkpoint's folder.
    public var path: String
    public var entries: [SafetensorsWriter.Entry]

    public var names: [String] { entries.map(\.name) }
    public var byteCount: Int { entries.reduce(0) { $0 + $1.byteCount } }
  }

  /// What one stage writes.
  public struct Share: Sendable, Equatable {
    public var model: [File]
    /// Moments and masters of what the stage trains; nil: it trains nothing.
    public var optimizer: File?
  }

  public let shares: [Share]
  /// Files with what no stage holds.
  public let copied: [File]

  /// - Parameters:
  ///   - stages: what each stage holds, in the order it should be written in. What two hold,
  ///     the first writes.
  ///   - configuration: of the model, which says what there is beyond the stages.
  ///   - storedType: of a weight that no stage holds.
  ///   - saveType: float32 or bfloat16 for all weights; nil: each as the model stores it.
  ///   - shardBytes: about how large a file of weights may be.
  ///   - withOptimizer: false: for an export, which nobody resumes from.
  public init(
    stages: [[Held]], configuration: ModelConfiguration,
    storedType: (Weight) throws -> ScalarType, saveType: ScalarType? = nil,
    shardBytes: Int = 4 << 30, withOptimizer: Bool = true
  ) rethrows {
    let weights = WeightNames.all(configuration)
    var missing = Set(weights.map(\.name))
    var groups: [[[SafetensorsWriter.Entry]]] = []
    for held in stages {
      let entries = held.filter { missing.remove($0.name) != nil }
        .map { SafetensorsWriter.Entry($0.name, saveType ?? $0.storedType, $0.shape) }
      groups.append(ShardPlan.groups(entries, shardBytes: shardBytes))
    }
    let rest = try weights.filter { missing.contains($0.name) }.map { weight in
      SafetensorsWriter.Entry(weight.name, try saveType ?? storedType(weight), weight.shape)
    }
    groups.append(ShardPlan.groups(rest, shardBytes: shardBytes))

    let count = groups.reduce(0) { $0 + $1.count }
    var index = 0
    var files = groups.map { group in
      group.map { entries in
        defer { index += 1 }
        return File(path: ShardPlan.fileName("model", index, of: count), entries: entries)
      }
    }
    copied = files.removeLast()
    let optimizers = CheckpointLayout.optimizerFiles(
      withOptimizer ? stages : stages.map { _ in [] }, models: files)
    shares = zip(files, optimizers).map { Share(model: $0, optimizer: $1) }
  }

  /// The layout of a run that began with the model of a reader.
  ///
  /// - Throws: ``CheckpointError`` when a weight that no stage holds is not in the model.
  public init(
    stages: [[Held]], configuration: ModelConfiguration, source: CheckpointReader,
    saveType: ScalarType? = nil, shardBytes: Int = 4 << 30, withOptimizer: Bool = true
  ) throws {
    try self.init(
      stages: stages, configuration: configuration,
      storedType: { weight in
        try source.entry(weight.name).scalarType
      },
      saveType: saveType, shardBytes: shardBytes, withOptimizer: withOptimizer)
  }

  /// All files of weights, in the order of their numbers.
  public var modelFiles: [File] { shares.flatMap(\.model) + copied }
  public var optimizerFiles: [File] { shares.compactMap(\.optimizer) }
  /// Bytes of all tensors.
  public var byteCount: Int {
    (modelFiles + optimizerFiles).reduce(0) { $0 + $1.byteCount }
  }

  /// A parameter has a master wherever the files of weights do not hold it in float32.
  private static func optimizerFiles(_ stages: [[Held]], models: [[File]]) -> [File?] {
    let exact = Set(
      models.joined().flatMap(\.entries).filter { $0.scalarType == .float32 }.map(\.name))
    var seen: Set<String> = []
    let groups = stages.map { held in
      held.filter { $0.isTrained && seen.insert($0.name).inserted }.flatMap { held in
        OptimizerNames.all(of: held.name, withMaster: !exact.contains(held.name)).map {
          SafetensorsWriter.Entry($0, .float32, held.shape)
        }
      }
    }
    let count = groups.count { !$0.isEmpty }
    var index = 0
    return groups.map { entries in
      guard !entries.isEmpty else { return nil }
      defer { index += 1 }
      return File(
        path: "\(OptimizerNames.folder)/" + ShardPlan.fileName("optimizer", index, of: count),
        entries: entries)
    }
  }
}

/// The names of a parameter's state in the optimizer's files.
enum OptimizerNames {
  static let folder = "optimizer"
  static let index = "optimizer.safetensors.index.json"

  static func firstMoment(_ parameter: String) -> String { "exp_avg.\(parameter)" }
  static func secondMoment(_ parameter: String) -> String { "exp_avg_sq.\(parameter)" }
  static func master(_ parameter: String) -> String { "master.\(parameter)" }

  static func all(of parameter: String, withMaster: Bool) -> [String] {
    [firstMoment(parameter), secondMoment(parameter)] + (withMaster ? [master(parameter)] : [])
  }
}
