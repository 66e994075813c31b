import Tensors

/// Numbers that are the same in every run (SplitMix64, by Sebastiano Vigna).
public struct SeededRandom: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(_ seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Evenly spread numbers.
  public mutating func floats(_ count: Int, in range: ClosedRange<Float> = -1...1) -> [Float] {
    (0..<count).map { _ in Float.random(in: range, using: &self) }
  }

  /// A float32 or bfloat16 tensor of evenly spread numbers.
  public mutating func tensor(
    _ shape: [Int], _ type: ScalarType = .float32, in range: ClosedRange<Float> = -1...1
  ) -> Tensor {
    let tensor = Tensor(zeros: type, shape)
    let values = floats(tensor.count, in: range)
    if type == .bfloat16 {
      tensor.withElements(of: UInt16.self) { elements in
        for i in elements.indices {
          elements[i] = UInt16(truncatingIfNeeded: values[i].bitPattern >> 16)
        }
      }
    } else {
      tensor.withElements(of: Float.self) { _ = $0.update(fromContentsOf: values) }
    }
    return tensor
  }
}

extension Tensor {
  /// The elements of a float32 or bfloat16 tensor, for the reference.
  public var doubles: [Double] { floats.map(Double.init) }

  /// The bits of a float32 tensor's elements: equal bits, not merely equal numbers.
  public var bits: [UInt32] { floats.map(\.bitPattern) }

  /// Whether a float32 tensor holds the same bits. In an expectation this, not `bits == bits`,
  /// which on failure seeks the shortest edit from one array to the other for minutes.
  public func hasSameBits(as other: Tensor) -> Bool { bits == other.bits }
}
