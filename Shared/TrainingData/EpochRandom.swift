import Sampling

/// Numbers of a seed and an epoch, one after another.
struct EpochRandom {
  private let key: SIMD2<UInt32>
  private let epoch: UInt32
  private var counter: UInt64 = 0

  init(seed: UInt64, epoch: Int) {
    key = SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
    self.epoch = UInt32(truncatingIfNeeded: epoch)
  }

  /// 64 bits: the first two words of the i-th block, whose counter is i in two words, the epoch,
  /// and 0x6F726465, which tells these draws from others of the seed.
  mutating func next() -> UInt64 {
    let block = Philox.block(
      counter: SIMD4(
        UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32), epoch,
        0x6F72_6465),
      key: key)
    counter += 1
    return UInt64(block.y) << 32 | UInt64(block.x)
  }

  /// A number in 0..<`bound`, all equally likely (Lemire, arXiv:1805.10941).
  mutating func next(below bound: UInt64) -> UInt64 {
    var product = next().multipliedFullWidth(by: bound)
    if product.low < bound {
      let threshold = (0 &- bound) % bound
      while product.low < threshold { product = next().multipliedFullWidth(by: bound) }
    }
    return product.high
  }
}
