import Tensors
import Training
import TrainingData

/// The data of one step.
public struct StepBatch: Sendable {
  public var plan: StepPlan
  /// Where each micro-batch's samples were read.
  public var sources: [[TrainingSample.Source]]
  /// Pixels of a micro-batch's samples together [tiles, 3, H, W]; nil: text only.
  public var pixels: [Tensor?]

  public init(plan: StepPlan, sources: [[TrainingSample.Source]], pixels: [Tensor?]) {
    self.plan = plan
    self.sources = sources
    self.pixels = pixels
  }

  /// - Parameter groups: the samples of each micro-batch.
  /// - Throws: `TrainingError`.
  public init(
    _ groups: [[TrainingSample]], weighting: LossWeighting, paddedTo length: Int? = nil
  ) throws {
    plan = try StepPlan(
      groups.map { group in
        group.map {
          StepPlan.Sample(
            key: $0.key, ids: $0.ids, labels: $0.labels, tiles: $0.pixels?.shape[0] ?? 0)
        }
      }, weighting: weighting, paddedTo: length)
    sources = groups.map { $0.map(\.source) }
    pixels = groups.map { StepBatch.joined($0.compactMap(\.pixels)) }
  }

  /// The samples of micro-batches, as people find them.
  func names(of microBatches: [Int]) -> [String] {
    microBatches.flatMap { sources[$0] }.map { "\($0.file):\($0.line)" }
  }

  func work(
    step: Int, attempt: Int = 0, schedule: ScheduleKind, forwardOnly: Bool = false
  ) -> StepWork {
    let pixels = pixels
    var work = StepWork(
      step: UInt64(step), microBatches: plan.microBatches, schedule: schedule,
      forwardOnly: forwardOnly
    ) { index in
      guard let tensor = pixels[index] else {
        preconditionFailure("micro-batch \(index) has no pictures")
      }
      return tensor
    }
    work.attempt = attempt
    return work
  }

  private static func joined(_ tensors: [Tensor]) -> Tensor? {
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
}
