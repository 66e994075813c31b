/// When every process did what, over some steps.
public struct Trace: Sendable, Equatable {
  public struct Span: Sendable, Hashable {
    public var process: Int
    public var step: Int
    public var action: Action
    /// Microseconds, on one clock for all processes.
    public var start: Int64
    public var duration: Int64
    public var end: Int64 { start + duration }

    public init(process: Int, step: Int, action: Action, start: Int64, duration: Int64) {
      self.process = process
      self.step = step
      self.action = action
      self.start = start
      self.duration = duration
    }
  }

  /// Names of the processes, in the order of the pipeline.
  public let processes: [String]
  public private(set) var spans: [Span] = []
  /// Spans kept at most: a long run must not fill the memory.
  public let limit: Int
  /// The step whose spans did not fit any more. Neither it nor what came after it is in the trace.
  public private(set) var firstMissingStep: Int?
  /// Spans that are missing.
  public private(set) var dropped = 0

  /// Microseconds are kept within this, so that sums of them cannot overflow.
  static let timeLimit: Int64 = 1 << 52

  public init(processes: [String], limit: Int = 1_000_000) {
    self.processes = processes
    self.limit = limit
  }

  /// Adds what a process did. Spans that no clock makes (before 0, far out, of no process) are
  /// passed over.
  public mutating func add(_ span: Span) {
    guard processes.indices.contains(span.process), span.step >= 0, span.action.microBatch >= 0,
      span.action.chunk >= 0, (0...Trace.timeLimit).contains(span.start),
      (0...Trace.timeLimit).contains(span.duration)
    else { return }
    if spans.count < limit, firstMissingStep == nil { return spans.append(span) }
    if firstMissingStep == nil {
      // Half a step would look like one that idled.
      let whole = spans.filter { $0.step != span.step }
      dropped += spans.count - whole.count
      spans = whole
      firstMissingStep = span.step
    }
    dropped += 1
  }

  /// The steps that have spans, ascending.
  public var steps: [Int] { Set(spans.map(\.step)).sorted() }

  /// The spans of a step.
  public func spans(ofStep step: Int) -> [Span] { spans.filter { $0.step == step } }

  /// The share of time in which processes idled, between the start of a step's first action and
  /// the end of its last; over all steps when none is given, without what lies between steps
  /// (updates, checkpoints). nil: there are no spans.
  ///
  /// Processes count in the steps in which they have work: a vision encoder that has no pictures
  /// in a step is not waiting for any. What a schedule makes of the same durations, were there no
  /// waiting for messages, is the bubble of ``Simulation/init(_:replaying:step:)``.
  ///
  /// Spans of a process that overlap, as of a clock's rounding, count once.
  public func bubble(ofStep step: Int? = nil) -> Double? {
    let grouped = Dictionary(grouping: spans, by: \.step)
    var busy = 0.0
    var whole = 0.0
    for (key, spans) in grouped where step == nil || key == step {
      let (start, end) = Trace.bounds(spans)
      let working = Dictionary(grouping: spans, by: \.process)
      whole += Double(end - start) * Double(working.count)
      for (_, own) in working {
        busy += Double(Trace.covered(own))
      }
    }
    guard whole > 0 else { return nil }
    return max(0, 1 - busy / whole)
  }

  /// Start of the first span and end of the last.
  static func bounds(_ spans: [Span]) -> (start: Int64, end: Int64) {
    (spans.map(\.start).min() ?? 0, spans.map(\.end).max() ?? 0)
  }

  private static func covered(_ spans: [Span]) -> Int64 {
    var sum: Int64 = 0
    var reached = Int64.min
    for span in spans.sorted(by: { $0.start < $1.start }) where span.end > reached {
      sum += span.end - max(reached, span.start)
      reached = span.end
    }
    return sum
  }
}

extension Trace {
  /// A simulation as a trace, a unit of its costs being so many microseconds.
  public init(_ simulation: Simulation, processes: [String], step: Int = 0, scale: Double = 1000) {
    self.init(processes: processes)
    for (process, row) in simulation.timeline.enumerated() {
      for span in row where !span.isSkipped {
        let start = Int64((span.start * scale).rounded())
        add(
          Span(
            process: process, step: step, action: span.action, start: start,
            duration: Int64((span.end * scale).rounded()) - start))
      }
    }
  }
}

extension StageCosts.Stage {
  /// Forward and both halves of the backward.
  public var total: Double { forward + backwardInput + backwardWeight }
}
