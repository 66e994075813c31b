import Sampling

/// Which samples have turns that are hidden from each other.
public struct TurnSeparation: Sendable, Equatable {
  /// Of the samples, 0…1; the others are whole conversations.
  public var share: Double
  public var seed: UInt64

  public init(share: Double = 0, seed: UInt64 = 0) {
    self.share = share
    self.seed = seed
  }

  /// Whether the sample of a ``TrainingSample/key`` is one of them: the same in every epoch, and
  /// with every greater share.
  ///
  /// 53 bits of the block whose counter is the key in two words, 0, and 0x7475726E, which tells
  /// these draws from others of the seed, are below the share.
  public func separates(key: UInt64) -> Bool {
    let block = Philox.block(
      counter: SIMD4(
        UInt32(truncatingIfNeeded: key), UInt32(truncatingIfNeeded: key >> 32), 0, 0x7475_726E),
      key: SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32)))
    let bits = (UInt64(block.y) << 32 | UInt64(block.x)) >> 11
    return Double(bits) * 0x1p-53 < share
  }
}
