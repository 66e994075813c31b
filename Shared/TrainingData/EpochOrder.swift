/// Which samples each step of a run trains on.
///
/// A value: any step's samples follow from the seed and the step's number, so that a run can be
/// taken up anywhere. Every sample comes once an epoch; the last step of an epoch may have fewer.
/// A permutation is Fisher–Yates with ``EpochRandom``.
public struct EpochOrder: Sendable, Equatable {
  /// Samples of an epoch.
  public let count: Int
  public let globalBatchSize: Int
  public let seed: UInt64

  /// All at least 1.
  public init(count: Int, globalBatchSize: Int, seed: UInt64) {
    precondition(count > 0 && globalBatchSize > 0, "\(count) samples by \(globalBatchSize)")
    self.count = count
    self.globalBatchSize = globalBatchSize
    self.seed = seed
  }

  public var stepsPerEpoch: Int { (count + globalBatchSize - 1) / globalBatchSize }

  /// Steps of a run of so many epochs, which need not be whole.
  public func steps(epochs: Double) -> Int {
    max(1, Int((epochs * Double(stepsPerEpoch)).rounded(.up)))
  }

  public struct Position: Sendable, Equatable {
    public var epoch: Int
    /// Step in the epoch.
    public var step: Int

    public init(epoch: Int, step: Int) {
      self.epoch = epoch
      self.step = step
    }
  }

  /// Where a run's step stands, both counted from 0.
  public func position(ofStep step: Int) -> Position {
    Position(epoch: step / stepsPerEpoch, step: step % stepsPerEpoch)
  }

  /// All samples of an epoch, 0..<``count``, in their order.
  public func permutation(epoch: Int) -> [Int] {
    var random = EpochRandom(seed: seed, epoch: epoch)
    var order = Array(0..<count)
    var last = count - 1
    while last > 0 {
      order.swapAt(last, Int(random.next(below: UInt64(last + 1))))
      last -= 1
    }
    return order
  }

  /// The samples of a step of an epoch.
  public func samples(_ permutation: [Int], step: Int) -> ArraySlice<Int> {
    let start = step * globalBatchSize
    return permutation[start..<min(start + globalBatchSize, count)]
  }
}
