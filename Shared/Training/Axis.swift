#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Foundation
#endif

/// Round numbers along an axis.
enum Axis {
  /// About `count` multiples of 1, 2 or 5 times a power of ten within a range.
  static func ticks(_ range: ClosedRange<Double>, count: Int) -> [Double] {
    let span = range.upperBound - range.lowerBound
    guard span > 0, span.isFinite, count > 0 else { return [range.lowerBound] }
    let raw = span / Double(count)
    let power = pow(10, log10(raw).rounded(.down))
    guard power > 0, power.isFinite else { return [range.lowerBound] }
    let step = ([1, 2, 5, 10].first { $0 * power >= raw * 0.999 } ?? 10) * power
    let first = (range.lowerBound / step - 1e-9).rounded(.up)
    let last = (range.upperBound / step + 1e-9).rounded(.down)
    guard last >= first, last - first <= 1000 else { return [range.lowerBound] }
    return stride(from: first, through: last, by: 1).map { $0 * step }
  }

  /// 1, 2 and 5 times the powers of ten within a range above 0.
  static func logarithmicTicks(_ range: ClosedRange<Double>) -> [Double] {
    guard range.lowerBound > 0, range.upperBound.isFinite else { return [] }
    let first = Int(log10(range.lowerBound).rounded(.down))
    let last = Int(log10(range.upperBound).rounded(.up))
    let digits: [Double] = last - first > 3 ? [1] : [1, 2, 5]
    return (first...last).flatMap { exponent in digits.map { $0 * pow(10, Double(exponent)) } }
      .filter { $0 >= range.lowerBound * 0.999_999 && $0 <= range.upperBound * 1.000_001 }
  }

  /// A number in few digits: 0.25, 1500, 2e-05.
  static func text(_ value: Double) -> String {
    if value == 0 { return "0" }
    let size = abs(value)
    guard size.isFinite else { return "\(value)" }
    if size >= 1e-4, size < 1e7 {
      let rounded = (value * 1e6).rounded() / 1e6
      return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
    }
    let exponent = Int(log10(size).rounded(.down))
    let mantissa = (value / pow(10, Double(exponent)) * 1000).rounded() / 1000
    return "\(text(mantissa))e\(exponent)"
  }
}
