#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Keeps a thread awake through short pauses between pieces of work.
///
/// Waking a thread together with the processor it slept on takes tens of microseconds on a
/// virtual machine, longer than many a pause lasts. After a short pause the next one probably is
/// short, too: the thread then looks for work for a moment before it sleeps, and leaves its
/// processor to whoever wants it between two looks. A thread whose work comes seldom sleeps at
/// once.
public struct Pause {
  private let patience: Duration
  private let short: Duration
  private var wasShort = false

  /// - Parameters:
  ///   - patience: how long a thread looks for work before it sleeps.
  ///   - short: the longest sleep that counts as short; longer than `patience`, for with every
  ///     thread awake it would have been shorter.
  public init(patience: Duration = .microseconds(50), short: Duration = .microseconds(200)) {
    self.patience = patience
    self.short = short
  }

  /// Asks for work again and again for a moment, if the last pause was short.
  ///
  /// - Parameter look: must not block; nil: nothing yet.
  /// - Returns: what was found; nil: time to sleep.
  public func look<Found>(_ look: () throws -> Found?) rethrows -> Found? {
    guard wasShort else { return nil }
    let clock = ContinuousClock()
    let end = clock.now.advanced(by: patience)
    repeat {
      if let found = try look() { return found }
      sched_yield()
    } while clock.now < end
    return nil
  }

  /// Runs `body`, which blocks until there may be work, and takes note of how long that was.
  @discardableResult
  public mutating func sleep<Result>(_ body: () throws -> Result) rethrows -> Result {
    let clock = ContinuousClock()
    let start = clock.now
    defer { wasShort = start.duration(to: clock.now) <= short }
    return try body()
  }
}
