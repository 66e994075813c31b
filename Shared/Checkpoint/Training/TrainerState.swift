/// Where a training run stands: what a checkpoint holds besides tensors.
///
/// Kept in two files. `trainer_state.json` has the keys of transformers' `TrainerState` and no
/// others, for its reader knows no more; `run_state.json` has what only a resumed run needs.
public struct TrainerState: Sendable, Equatable {
  /// What one step logged, under the names that transformers gives them.
  public struct LogEntry: Sendable, Equatable {
    public var step: Int
    public var epoch: Double
    public var loss: Double
    public var learningRate: Double
    public var gradientNorm: Double?

    public init(
      step: Int, epoch: Double, loss: Double, learningRate: Double, gradientNorm: Double? = nil
    ) {
      self.step = step
      self.epoch = epoch
      self.loss = loss
      self.learningRate = learningRate
      self.gradientNorm = gradientNorm
    }
  }

  /// Where the run stands in its data.
  public struct DataPosition: Sendable, Equatable {
    /// Counted from 0.
    public var epoch: Int
    /// Samples of the epoch that were used, in the epoch's order.
    public var samples: Int
    /// Says that the data is the same: whatever the run makes of its files.
    public var digest: String

    public init(epoch: Int = 0, samples: Int = 0, digest: String = "") {
      self.epoch = epoch
      self.samples = samples
      self.digest = digest
    }
  }

  /// Steps done.
  public var globalStep: Int
  /// Passes over the data done, with a fraction.
  public var epoch: Double
  public var maxSteps: Int
  public var epochs: Double
  public var trainBatchSize: Int
  public var saveSteps: Int
  public var tokensSeen: Int
  public var totalFLOPs: Double
  /// The newest ``maximumLogEntries`` of them are written.
  public var log: [LogEntry]

  public var seed: UInt64
  /// Updates of the optimizer, which are fewer than steps where steps were skipped.
  public var updates: Int
  public var data: DataPosition
  /// Says that the settings which decide about the numbers are the same.
  public var configurationDigest: String
  /// Whatever else a run wants to know again.
  public var notes: [String: String]

  public static let maximumLogEntries = 20_000
  static let fileName = "trainer_state.json"
  static let runFileName = "run_state.json"
  private static let maximumBytes = 16 << 20
  private static let maximumNotes = 256

  public init(
    globalStep: Int = 0, epoch: Double = 0, maxSteps: Int = 0, epochs: Double = 1,
    trainBatchSize: Int = 1, saveSteps: Int = 0, tokensSeen: Int = 0, totalFLOPs: Double = 0,
    log: [LogEntry] = [], seed: UInt64 = 42, updates: Int = 0,
    data: DataPosition = DataPosition(), configurationDigest: String = "",
    notes: [String: String] = [:]
  ) {
    self.globalStep = globalStep
    self.epoch = epoch
    self.maxSteps = maxSteps
    self.epochs = epochs
    self.trainBatchSize = trainBatchSize
    self.saveSteps = saveSteps
    self.tokensSeen = tokensSeen
    self.totalFLOPs = totalFLOPs
    self.log = log
    self.seed = seed
    self.updates = updates
    self.data = data
    self.configurationDigest = configurationDigest
    self.notes = notes
  }

  // MARK: Reading

  /// Reads the state in a checkpoint's folder.
  ///
  /// - Throws: ``CheckpointError`` when one of the two files is missing or no such state.
  public static func load(folder: String) throws -> TrainerState {
    var state = TrainerState()
    try state.readTrainer("\(folder)/\(fileName)")
    try state.readRun("\(folder)/\(runFileName)")
    return state
  }

  private static let counts = 0...(1 << 53)
  private static let numbers = -1e300...1e300

  private mutating func readTrainer(_ path: String) throws {
    let bytes = try readFile(path, limit: TrainerState.maximumBytes)
    let object = try ConfigurationObject(bytes, file: path)
    globalStep = try object.integer("global_step", in: TrainerState.counts)
    epoch = try object.number("epoch", in: 0...1e9, default: 0)
    maxSteps = try object.integer("max_steps", in: TrainerState.counts, default: 0)
    epochs = try object.number("num_train_epochs", in: 0...1e9, default: 1)
    trainBatchSize = try object.integer("train_batch_size", in: TrainerState.counts, default: 1)
    saveSteps = try object.integer("save_steps", in: TrainerState.counts, default: 0)
    tokensSeen = try object.integer(
      "num_input_tokens_seen", in: TrainerState.counts, default: 0)
    totalFLOPs = try object.number("total_flos", in: TrainerState.numbers, default: 0)
    log = try TrainerState.readLog(bytes, path)
  }

  /// Entries without a loss, such as the summary that transformers writes last, are left out.
  private static func readLog(_ bytes: [UInt8], _ path: String) throws -> [LogEntry] {
    var log: [LogEntry] = []
    try bytes.withUnsafeBytes { bytes in
      var scanner = JSONScanner(bytes, file: path)
      try scanner.object { scanner, key in
        guard key == "log_history" else { return try scanner.skipValue() }
        try scanner.array { scanner in
          var values: [String: Double] = [:]
          try scanner.object { scanner, name in
            switch try scanner.value() {
            case .integer(let value): values[name] = Double(value)
            case .number(let value): values[name] = value
            default: break
            }
          }
          guard let step = values["step"].flatMap({ Int(exactly: $0) }), step >= 0,
            let loss = values["loss"]
          else { return }
          guard log.count < 4 * maximumLogEntries else {
            throw scanner.failure("more than \(4 * maximumLogEntries) entries of log_history")
          }
          log.append(
            LogEntry(
              step: step, epoch: values["epoch"] ?? 0, loss: loss,
              learningRate: values["learning_rate"] ?? 0, gradientNorm: values["grad_norm"]))
        }
      }
    }
    return Array(log.suffix(maximumLogEntries))
  }

  private mutating func readRun(_ path: String) throws {
    let object = try ConfigurationObject(
      readFile(path, limit: TrainerState.maximumBytes), file: path)
    let digits = try object.requiredString("seed")
    guard let seed = UInt64(digits) else {
      throw object.invalid("seed", digits, "a whole number of 64 bits, as a string")
    }
    self.seed = seed
    updates = try object.integer("updates", in: TrainerState.counts)
    let position = try object.requiredObject("data")
    data = DataPosition(
      epoch: try position.integer("epoch", in: TrainerState.counts),
      samples: try position.integer("samples", in: TrainerState.counts),
      digest: try position.string("digest") ?? "")
    epochs = try object.number("epochs", in: 0...1e9, default: epochs)
    configurationDigest = try object.string("configuration_digest") ?? ""
    notes = try object.object("notes")?.allStrings(limit: TrainerState.maximumNotes) ?? [:]
  }

  // MARK: Writing

  /// The files by name.
  var files: [(name: String, bytes: [UInt8])] {
    [
      (TrainerState.fileName, Array(trainerJSON.text.utf8)),
      (TrainerState.runFileName, Array(runJSON.text.utf8)),
    ]
  }

  private var trainerJSON: JSONValue {
    .object([
      ("best_metric", .null),
      ("best_model_checkpoint", .null),
      ("epoch", .number(epoch)),
      ("eval_steps", .integer(max(1, saveSteps))),
      ("global_step", .integer(globalStep)),
      ("is_hyper_param_search", .boolean(false)),
      ("is_local_process_zero", .boolean(true)),
      ("is_world_process_zero", .boolean(true)),
      ("log_history", .array(log.suffix(TrainerState.maximumLogEntries).map(\.json))),
      ("logging_steps", .integer(1)),
      ("max_steps", .integer(maxSteps)),
      ("num_input_tokens_seen", .integer(tokensSeen)),
      ("num_train_epochs", .integer(Int(epochs.rounded(.up)))),
      ("save_steps", .integer(saveSteps)),
      ("total_flos", .number(totalFLOPs)),
      ("train_batch_size", .integer(trainBatchSize)),
      ("trial_name", .null),
      ("trial_params", .null),
    ])
  }

  private var runJSON: JSONValue {
    .object([
      ("configuration_digest", .string(configurationDigest)),
      (
        "data",
        .object([
          ("digest", .string(data.digest)),
          ("epoch", .integer(data.epoch)),
          ("samples", .integer(data.samples)),
        ])
      ),
      ("epochs", .number(epochs)),
      ("notes", .object(notes.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) })),
      // A double, which JSON's numbers are to many readers, does not hold 64 bits.
      ("seed", .string("\(seed)")),
      ("updates", .integer(updates)),
    ])
  }
}

extension TrainerState.LogEntry {
  fileprivate var json: JSONValue {
    var members: [(String, JSONValue)] = [("epoch", .number(epoch))]
    if let gradientNorm { members.append(("grad_norm", .number(gradientNorm))) }
    members.append(("learning_rate", .number(learningRate)))
    members.append(("loss", .number(loss)))
    members.append(("step", .integer(step)))
    return .object(members)
  }
}
