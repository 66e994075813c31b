import Training

/// Which samples each step of a run trains on.
///
/// A value: any step's samples follow from the seed and the step's number, so that a run can be
/// taken up anywhere. How many steps an epoch has, ``Training/TrainingLength`` says: a sample comes
/// once an epoch, but for ``Training/TrainingLength/leftOut`` at its end, which are others in every
/// epoch; the last step may have fewer samples, by less than a micro-batch.
/// A permutation is Fisher–Yates with ``EpochRandom``.
public struct EpochOrder: Sendable, Equatable {
  public let length: TrainingLength
  public let seed: UInt64

  /// - Parameter length: of one sample at least.
  public init(_ length: TrainingLength, seed: UInt64) {
    precondition(length.samples > 0, "\(length.samples) samples")
    self.length = length
    self.seed = seed
  }

  /// All samples of an epoch, from 0 on, in their order.
  public func permutation(epoch: Int) -> [Int] {
    var random = EpochRandom(seed: seed, epoch: epoch)
    var order = Array(0..<length.samples)
    var last = length.samples - 1
    while last > 0 {
      order.swapAt(last, Int(random.next(below: UInt64(last + 1))))
      last -= 1
    }
    return order
  }

  /// The samples of a step of an epoch, counted from 0 to below
  /// ``Training/TrainingLength/stepsPerEpoch``.
  public func samples(_ permutation: [Int], step: Int) -> ArraySlice<Int> {
    permutation.dropFirst(step * length.globalBatchSize).prefix(length.globalBatchSize)
  }
}
