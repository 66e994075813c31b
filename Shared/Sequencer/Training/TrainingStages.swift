import Checkpoint
import InternVL
import Tensors
import Training

/// Those who compute a training run: the stages of a mesh, or this process alone.
///
/// One call at a time; ``save(_:)`` alone may go on while steps do.
public protocol TrainingStages: Sendable {
  /// How many processes there are, and which slices of layers each holds.
  func placement() async throws -> StagePlacement

  /// Makes all parts ready to train, with the parameters and moments of a checkpoint or, without
  /// one, of the model folder, and forgets whatever was under way.
  func prepare(_ preparation: TrainingPreparation) async throws -> PreparedStages

  /// Forward and backward passes of a step's micro-batches. Gradients add up until
  /// ``update(_:)``.
  func step(_ work: StepWork) async throws -> StepOutcome

  /// Changes the parameters, or drops the gradients.
  func update(_ update: ParameterUpdate) async throws

  /// Forgets a step that did not end well, as far as anybody is there to be told.
  func abandon(step: UInt64) async

  /// Takes a snapshot of everything and then writes it, as the task that is returned. It fails with
  /// OUT_OF_RANGE where an update came before the snapshot, with ABORTED where an earlier one is
  /// still being written, with ``NoRoom`` or `CheckpointError` where the disk is full.
  func save(_ work: SaveWork) async throws -> Task<Int, any Error>

  /// Float32 tensors by the release's names.
  func fetch(_ names: [String], _ what: FetchedTensor) async throws -> [String: Tensor]

  /// Waits until everybody who was lost is back.
  ///
  /// - Throws: who is missing after `duration`.
  func ready(within duration: Duration) async throws

  /// Lets go of all that training holds but the weights, as far as anybody is there to be told.
  func release() async
}

extension TrainingStages {
  public func release() async {}
}

/// A share of a checkpoint for which a disk has no room.
public struct NoRoom: Error, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

public struct StagePlacement: Sendable, Equatable {
  /// A process.
  public struct Stage: Sendable, Equatable {
    public var name: String
    /// Slices of layers held.
    public var chunks: Int

    public init(name: String, chunks: Int = 1) {
      self.name = name
      self.chunks = chunks
    }
  }

  public var vision: [Stage]
  public var projector: Stage
  public var language: [Stage]

  public init(vision: [Stage], projector: Stage, language: [Stage]) {
    self.vision = vision
    self.projector = projector
    self.language = language
  }

  /// In the order of the data.
  public var all: [Stage] { vision + [projector] + language }

  /// For each slice of the model, in the order of the data, the index of its process and which
  /// of that one's slices it is.
  public var slices: [(process: Int, chunk: Int)] {
    var slices = (0...vision.count).map { (process: $0, chunk: 0) }
    let first = slices.count
    for chunk in 0..<(language.first?.chunks ?? 0) {
      for index in language.indices { slices.append((first + index, chunk)) }
    }
    return slices
  }
}

public struct TrainingPreparation: Sendable {
  public var options: TrainingOptions
  /// A checkpoint folder; nil: the model's own.
  public var checkpoint: String?
  /// For ``TrainingStages/fetch(_:_:)`` after an update.
  public var keepsGradients = false
  /// Files that everybody who writes a share of a checkpoint must see.
  public var sharedFiles: [String] = []

  public init(options: TrainingOptions, checkpoint: String? = nil, keepsGradients: Bool = false) {
    self.options = options
    self.checkpoint = checkpoint
    self.keepsGradients = keepsGradients
  }
}

public struct PreparedStages: Sendable {
  /// By process, what it would write into a checkpoint.
  public var held: [[CheckpointLayout.Held]]
  /// Held for training, by process: copies, gradients, moments.
  public var trainingBytes: [Int]
  /// Updates that the moments have seen.
  public var updates: UInt64

  public init(held: [[CheckpointLayout.Held]], trainingBytes: [Int], updates: UInt64) {
    self.held = held
    self.trainingBytes = trainingBytes
    self.updates = updates
  }
}

/// One step's work.
public struct StepWork: Sendable {
  public var step: UInt64
  public var microBatches: [MicroBatch]
  public var pixels: StepBatch.Pixels
  public var schedule: ScheduleKind
  /// Tells the tries of one step apart.
  public var attempt = 0
  /// No gradients: the loss alone.
  public var forwardOnly = false
  /// As the stages were prepared.
  public var objectives = TrainingObjectives()

  public init(
    step: UInt64, microBatches: [MicroBatch], schedule: ScheduleKind, forwardOnly: Bool = false,
    pixels: @escaping StepBatch.Pixels
  ) {
    self.step = step
    self.microBatches = microBatches
    self.pixels = pixels
    self.schedule = schedule
    self.forwardOnly = forwardOnly
  }
}

public struct StepOutcome: Sendable {
  /// By micro-batch: the sum over its labelled rows, and their number.
  public var losses: [(sum: Double, rows: Int)]
  /// What came of other parts of the loss.
  public var objectives: [ObjectiveLoss] = []
  /// Sum of the squares of each trained parameter's gradient, by name.
  public var squares: [String: Double]
  /// By process, in the order of their start.
  public var timings: [[TimedAction]]
  /// Most bytes kept for backward passes, by process.
  public var peakSavedBytes: [Int]
  public var peakSavedMicroBatches: [Int]
  /// As the processes were told to go; nil: there is one process.
  public var schedule: Schedule?

  public init(
    losses: [(sum: Double, rows: Int)], squares: [String: Double], timings: [[TimedAction]],
    peakSavedBytes: [Int], peakSavedMicroBatches: [Int]
  ) {
    self.losses = losses
    self.squares = squares
    self.timings = timings
    self.peakSavedBytes = peakSavedBytes
    self.peakSavedMicroBatches = peakSavedMicroBatches
  }

  /// The global norm of the gradient, added up in the order of the parameters' names: the same
  /// bits however the model is split.
  public var gradientNorm: Double {
    squares.sorted { $0.key < $1.key }.reduce(0) { $0 + $1.value }.squareRoot()
  }
}

/// When an action was at work, in microseconds on CLOCK_MONOTONIC.
public struct TimedAction: Sendable, Equatable {
  public var action: Action
  public var start: Int
  public var duration: Int

  public init(action: Action, start: Int, duration: Int) {
    self.action = action
    self.start = start
    self.duration = duration
  }
}

public struct ParameterUpdate: Sendable, Equatable {
  public var step: UInt64
  public var learningRate: Double
  /// Every gradient times this: clipping.
  public var gradientScale: Double
  /// Drops the gradients instead.
  public var skips: Bool

  public init(step: UInt64, learningRate: Double, gradientScale: Double, skips: Bool = false) {
    self.step = step
    self.learningRate = learningRate
    self.gradientScale = gradientScale
    self.skips = skips
  }
}

/// A checkpoint's tensors: which process writes what, and where.
public struct SaveWork: Sendable {
  /// Exists.
  public var folder: String
  /// Updates that the parameters have seen; a process that has gone on must not save.
  public var updates: Int
  /// Its shares are the processes'.
  public var layout: CheckpointLayout
  /// Of the model's files; nil: as the release has it.
  public var scalarType: ScalarType?
  public var mergesLoRA: Bool
  /// Lies in memory: nothing is flushed to a disk.
  public var isVolatile: Bool

  public init(
    folder: String, updates: Int, layout: CheckpointLayout, scalarType: ScalarType? = nil,
    mergesLoRA: Bool = false, isVolatile: Bool = false
  ) {
    self.folder = folder
    self.updates = updates
    self.layout = layout
    self.scalarType = scalarType
    self.mergesLoRA = mergesLoRA
    self.isVolatile = isVolatile
  }
}

public enum FetchedTensor: String, Sendable {
  case value, gradient
}
