import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Elements of a weight that training starts from where no part has it, each drawn from seed,
/// name and index alone.
struct InitialValues {
  private let key: UInt64

  init(name: String, seed: UInt64) {
    // FNV-1a.
    let hash = name.utf8.reduce(UInt64(0xCBF2_9CE4_8422_2325)) {
      ($0 ^ UInt64($1)) &* 0x100_0000_01B3
    }
    key = InitialValues.mix(hash ^ InitialValues.mix(seed))
  }

  /// Normal with mean 0 (Box and Muller, 1958), elements `range` of the weight.
  func normal(_ range: Range<Int>, standardDeviation: Double) -> Tensor {
    Tensor(
      range.map { index in
        // Within (0, 1], whose logarithm is finite.
        let radius = (-2 * log(1 - uniform(2 * index))).squareRoot()
        return Float(standardDeviation * radius * cos(2 * .pi * uniform(2 * index + 1)))
      }, [range.count])
  }

  /// Uniform within ±bound.
  func uniform(count: Int, bound: Double) -> Tensor {
    Tensor((0..<count).map { Float(bound * (2 * uniform($0) - 1)) }, [count])
  }

  /// Within [0, 1), 53 bits.
  private func uniform(_ index: Int) -> Double {
    let step = UInt64(truncatingIfNeeded: index) &* 0x9E37_79B9_7F4A_7C15
    return Double(InitialValues.mix(key &+ step) >> 11) * 0x1p-53
  }

  /// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
  private static func mix(_ value: UInt64) -> UInt64 {
    var bits = value
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return bits ^ bits >> 31
  }
}
