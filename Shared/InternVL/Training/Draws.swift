import Kernels

/// Which random numbers a place in training draws.
///
/// A draw is named by the run's seed, which keys the generator, and by a stream that mixes step,
/// sample, tile and place with the finalizer of SplitMix64: stream = mix(mix(mix(mix(step) ^
/// sample) ^ tile) ^ place). It does not depend on when, where or beside what it is drawn, so
/// that recomputation, another split or a resumed run draw the same.
enum Draws {
  static func stream(
    seed: UInt64, step: UInt64, sample: UInt64, tile: Int, place: UInt64
  ) -> RandomStream {
    let stream = [sample, UInt64(tile), place].reduce(mix(step)) { mix($0 ^ $1) }
    return RandomStream(seed: seed, stream: stream)
  }

  /// FNV-1a of a name.
  static func place(_ name: String) -> UInt64 {
    name.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  }

  /// The finalizer of SplitMix64 (Steele, Lea, Flood 2014), after its step.
  static func mix(_ value: UInt64) -> UInt64 {
    var bits = value &+ 0x9E37_79B9_7F4A_7C15
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return bits ^ bits >> 31
  }
}
