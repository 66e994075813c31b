/// A moment after which nobody wants a result any more.
public struct Deadline: Sendable, Hashable, Comparable {
  public let instant: ContinuousClock.Instant

  public init(_ instant: ContinuousClock.Instant) { self.instant = instant }

  public static func after(_ duration: Duration) -> Deadline {
    Deadline(ContinuousClock.now.advanced(by: duration))
  }

  /// Time left; zero once the deadline has passed.
  public var remaining: Duration { max(.zero, ContinuousClock.now.duration(to: instant)) }

  public var isPassed: Bool { ContinuousClock.now >= instant }

  public static func < (left: Deadline, right: Deadline) -> Bool { left.instant < right.instant }
}

extension Duration {
  /// Whole microseconds, rounded up; at most about 290,000 years.
  var microseconds: UInt64 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000)
    let (sum, carry) = whole.addingReportingOverflow(
      UInt64((attoseconds + 999_999_999_999) / 1_000_000_000_000))
    return overflow || carry ? .max : sum
  }

  /// A timeout read from a peer: at most ten years, so that no sum with it overflows.
  init(microseconds: UInt64) {
    self = .microseconds(Int64(min(microseconds, 315_360_000_000_000)))
  }
}
