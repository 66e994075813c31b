/// Logits in order of rank, without sorting them: higher ones first, of equal ones the lower index.
struct RankedLogits {
  let values: UnsafeBufferPointer<Float>

  /// A place in the ranking; everything up to it, itself included, is kept.
  struct Cut {
    var value: Float
    var index: Int

    static let everything = Cut(value: -.infinity, index: .max)

    func keeps(_ value: Float, _ index: Int) -> Bool {
      value > self.value || (value == self.value && index <= self.index)
    }
  }

  /// The value of rank `count` (1 is the best); `count` must be from 1 to the number of values.
  ///
  /// Radix selection, three passes over the order-preserving bits: its time does not depend on the
  /// values. No value may be NaN.
  func value(ofRank count: Int) -> Float {
    var remaining = count
    var prefix: UInt32 = 0
    var mask: UInt32 = 0
    for (shift, width) in [(21, 11), (10, 11), (0, 10)] as [(UInt32, UInt32)] {
      let digits = UInt32(1) << width - 1
      var histogram = [Int](repeating: 0, count: 1 << Int(width))
      for value in values {
        let key = Self.key(value)
        if key & mask == prefix { histogram[Int(key >> shift & digits)] += 1 }
      }
      var digit = Int(digits)
      while histogram[digit] < remaining && digit > 0 {
        remaining -= histogram[digit]
        digit -= 1
      }
      prefix |= UInt32(digit) << shift
      mask |= digits << shift
    }
    return Self.value(prefix)
  }

  /// The indices of the `count` best values, best first.
  func best(_ count: Int) -> [Int] {
    guard count > 0, !values.isEmpty else { return [] }
    let least = count < values.count ? value(ofRank: count) : -.infinity
    let candidates = values.indices.filter { values[$0] >= least }
    let ranked = candidates.sorted {
      values[$0] > values[$1] || (values[$0] == values[$1] && $0 < $1)
    }
    return Array(ranked.prefix(count))
  }

  /// Larger floats have larger keys. Both zeros have one key: they are equal.
  private static func key(_ value: Float) -> UInt32 {
    let bits = (value == 0 ? 0 : value).bitPattern
    return bits & 0x8000_0000 != 0 ? ~bits : bits | 0x8000_0000
  }

  private static func value(_ key: UInt32) -> Float {
    Float(bitPattern: key & 0x8000_0000 != 0 ? key & 0x7FFF_FFFF : ~key)
  }
}
