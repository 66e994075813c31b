import InternVL
import Tensors
import Training
import TrainingData

/// The data of one step: all of it but the pixels, which come micro-batch by micro-batch, because
/// those of a whole step may take gigabytes.
public struct StepBatch: Sendable {
  /// Pixels [tiles, 3, H, W] of a micro-batch's samples together; asked for in order, once each,
  /// and only of those that have tiles.
  ///
  /// Throws `TrainingDataError`, which names the sample that cannot be read.
  public typealias Pixels = @Sendable (Int) async throws -> Tensor

  public var plan: StepPlan
  /// Where the loss is more than the answers, or less.
  var objectives: ObjectivePlan?
  /// Where each micro-batch's samples were read.
  public var sources: [[TrainingSample.Source]]
  public var pixels: Pixels

  /// - Parameter groups: the samples of each micro-batch.
  /// - Throws: `TrainingError`.
  public init(
    _ groups: [[TrainingSample]], weighting: LossWeighting, paddedTo length: Int? = nil,
    pixels: @escaping Pixels
  ) throws {
    plan = try StepPlan(
      groups.map { group in
        group.map {
          StepPlan.Sample(
            key: $0.key, ids: $0.ids, labels: $0.labels, tiles: $0.tiles, turns: $0.turns)
        }
      }, weighting: weighting, paddedTo: length)
    sources = groups.map { $0.map(\.source) }
    self.pixels = pixels
  }

  /// The same of samples that are all in memory.
  public init(
    _ groups: [[TrainingSample]], weighting: LossWeighting, paddedTo length: Int? = nil
  ) throws {
    try self.init(groups, weighting: weighting, paddedTo: length) { index in
      guard let pixels = StepBatch.joined(groups[index].compactMap(\.pixels)) else {
        preconditionFailure("micro-batch \(index) has no pictures")
      }
      return pixels
    }
  }

  /// The samples of micro-batches, as people find them.
  func names(of microBatches: [Int]) -> [String] {
    microBatches.flatMap { sources[$0] }.map { "\($0.file):\($0.line)" }
  }

  func work(
    step: Int, attempt: Int = 0, schedule: ScheduleKind, forwardOnly: Bool = false
  ) -> StepWork {
    var work = StepWork(
      step: UInt64(step), microBatches: plan.microBatches, schedule: schedule,
      forwardOnly: forwardOnly, pixels: pixels)
    work.attempt = attempt
    return work
  }

  static func joined(_ tensors: [Tensor]) -> Tensor? {
    guard let first = tensors.first else { return nil }
    if tensors.count == 1 { return first }
    let rows = tensors.reduce(0) { $0 + $1.shape[0] }
    let whole = Tensor(uninitialized: first.scalarType, [rows] + first.shape.dropFirst())
    var next = 0
    for tensor in tensors {
      whole.rows(next..<next + tensor.shape[0]).copyElements(from: tensor)
      next += tensor.shape[0]
    }
    return whole
  }
}

/// Where a run's steps come from. A step's data depends on its number alone.
public protocol StepSource: Sendable {
  var length: TrainingLength { get }
  /// Says that the data is the same.
  var digest: String { get }
  /// Samples that are left out, for their flaws.
  var skipped: Int { get }

  /// The data of the step that follows `done` steps. May be asked for any step; asked for one
  /// after the other, it reads ahead.
  func batch(after done: Int) async throws -> StepBatch

  /// Where the data stands after `done` steps.
  func position(after done: Int) -> (epoch: Int, samples: Int)

  /// What the loss of a step is made of.
  var objectives: TrainingObjectives { get }
}

extension StepSource {
  public var objectives: TrainingObjectives { TrainingObjectives() }
}
