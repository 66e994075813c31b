/// Philox 4×32-10 (Salmon et al., “Parallel random numbers: as easy as 1, 2, 3”, SC11): a random
/// block for each counter and key, without state.
public enum Philox {
  public static func block(
    counter: SIMD4<UInt32>, key: SIMD2<UInt32>
  ) -> SIMD4<UInt32> {
    var counter = counter
    var key = key
    for _ in 0..<10 {
      let first = UInt32(0xD251_1F53).multipliedFullWidth(by: counter.x)
      let second = UInt32(0xCD9E_8D57).multipliedFullWidth(by: counter.z)
      counter = SIMD4(
        second.high ^ counter.y ^ key.x, second.low, first.high ^ counter.w ^ key.y, first.low)
      key &+= SIMD2(0x9E37_79B9, 0xBB67_AE85)
    }
    return counter
  }

  /// A number in [0, 1) with 53 random bits.
  static func uniform(seed: UInt64, step: UInt64) -> Double {
    let block = block(
      counter: SIMD4(UInt32(truncatingIfNeeded: step), UInt32(step >> 32), 0, 0),
      key: SIMD2(UInt32(truncatingIfNeeded: seed), UInt32(seed >> 32)))
    let bits = UInt64(block.y) << 32 | UInt64(block.x)
    return Double(bits >> 11) * 0x1p-53
  }
}
