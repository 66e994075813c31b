import Tensors

/// The elements of one random weight, each computed from its index alone.
struct RandomValues: Sendable {
  private let key: UInt64
  private let constant: Float?

  /// - Parameter start: nil: every weight counts; else as a model starts that is to be trained,
  ///   with biases of zero and layer scales of `start`.
  init(name: String, seed: UInt64, start: Float? = nil) {
    key = RandomValues.key(name: name, seed: seed)
    let isNorm = ["norm.weight", "norm1.weight", "norm2.weight", "mlp1.0.weight"]
      .contains { name.hasSuffix($0) }
    if isNorm {
      constant = 1
    } else if name.hasSuffix(".ls1") || name.hasSuffix(".ls2") {
      constant = start ?? 0.1
    } else {
      constant = start != nil && name.hasSuffix(".bias") ? 0 : nil
    }
  }

  /// Fills a float32 or bfloat16 tensor with the elements from `start` on.
  func fill(_ tensor: Tensor, from start: Int) {
    switch tensor.scalarType {
    case .float32:
      tensor.withElements(of: Float.self) { elements in
        for index in 0..<elements.count { elements[index] = value(start + index) }
      }
    case .bfloat16:
      tensor.withElements(of: UInt16.self) { elements in
        for index in 0..<elements.count {
          // To the nearest, ties to even; the values are finite.
          let bits = value(start + index).bitPattern
          elements[index] = UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
        }
      }
    case .int64, .int32, .uint8: preconditionFailure("random values of type \(tensor.scalarType)")
    }
  }

  /// Nearly normal with standard deviation 0.02: the sum of four 16-bit uniforms, whose exact
  /// arithmetic gives the same bits everywhere.
  @inline(__always)
  private func value(_ index: Int) -> Float {
    if let constant { return constant }
    let bits = RandomValues.mix(key &+ UInt64(truncatingIfNeeded: index) &* 0x9E37_79B9_7F4A_7C15)
    let sum = (bits & 0xFFFF) &+ (bits >> 16 & 0xFFFF) &+ (bits >> 32 & 0xFFFF) &+ bits >> 48
    // The sum's standard deviation is 65536 / √3.
    return Float(Int32(truncatingIfNeeded: sum) &- 131_070) * (0.02 * 1.732_050_8 / 65_536)
  }

  /// What the random bits of a tensor begin with.
  static func key(name: String, seed: UInt64) -> UInt64 {
    // FNV-1a tells tensors apart; the mix spreads neighbouring seeds.
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return mix(hash ^ mix(seed))
  }

  /// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
  @inline(__always)
  static func mix(_ value: UInt64) -> UInt64 {
    var bits = value
    bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
    bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
    return bits ^ bits >> 31
  }
}
