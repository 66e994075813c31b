/// A pipeline as a picture: a row for each process, a box for each action, idle time as ground.
///
/// Forwards are blue, backwards orange (input halves) or red, weights' gradients green; later
/// chunks of a process are lighter. A box bears its micro-batch where there is room. One step fits
/// the width; several steps make a wider picture.
public struct TraceDrawing: Sendable {
  public var title: String
  /// Points of a step's time.
  public var width: Double
  /// Steps drawn at most, from the first on.
  public var stepLimit: Int

  private static let rowHeight = 30.0
  private static let rowGap = 8.0
  private static let top = 64.0
  private static let right = 20.0
  /// Boxes in a picture at most: more is no picture.
  private static let boxLimit = 20_000

  public init(title: String = "Pipeline", width: Double = 1100, stepLimit: Int = 1) {
    self.title = title
    self.width = width
    self.stepLimit = stepLimit
  }

  /// - Parameter step: draws this one; nil: the first ones, up to the limit.
  public func svg(_ trace: Trace, step: Int? = nil) -> String {
    let steps = step.map { [$0] } ?? Array(trace.steps.prefix(max(1, stepLimit)))
    let chosen = Set(steps)
    let spans = Array(trace.spans.lazy.filter { chosen.contains($0.step) }.prefix(Self.boxLimit))
    let bounds = Trace.bounds(spans)
    let longest = trace.processes.map(\.count).max() ?? 0
    let left = min(260, 24 + 7.2 * Double(longest))
    let plot = width * Double(max(1, min(steps.count, 20)))
    let rows = Double(trace.processes.count)
    let bottom = Self.top + rows * (Self.rowHeight + Self.rowGap)
    var svg = SVG(
      width: left + plot + Self.right, height: bottom + 48, title: title, style: Self.style)
    svg.label(title, left, 26, size: 16, class: "ink strong")
    svg.label(summary(trace, spans, steps), left, 46, size: 12, class: "soft")
    let scale = plot / Double(max(1, bounds.end - bounds.start))
    func x(_ time: Int64) -> Double { left + Double(time - bounds.start) * scale }

    for (row, process) in trace.processes.enumerated() {
      let y = Self.top + Double(row) * (Self.rowHeight + Self.rowGap)
      let shown = process.count > 33 ? process.prefix(32) + "…" : process[...]
      svg.label(String(shown), left - 10, y + Self.rowHeight / 2 + 4, size: 12, anchor: "end")
      svg.rectangle(left, y, plot, Self.rowHeight, class: "idle")
    }
    for span in spans {
      let y = Self.top + Double(span.process) * (Self.rowHeight + Self.rowGap)
      let boxWidth = max(0.4, Double(span.duration) * scale)
      let milliseconds = SVG.number(Double(span.duration) / 1000)
      let tip =
        "\(trace.processes[span.process]), step \(span.step): \(span.action), \(milliseconds) ms"
      svg.rectangle(
        x(span.start), y, boxWidth, Self.rowHeight,
        class: "box \(Self.style(span.action))", tip: tip)
      let digits = "\(span.action.microBatch)"
      let size = min(12, (boxWidth - 2) / (0.6 * Double(digits.count)))
      if size >= 6 {
        svg.label(
          digits, x(span.start) + boxWidth / 2, y + Self.rowHeight / 2 + size * 0.36, size: size,
          anchor: "middle", class: "number")
      }
    }
    axis(&svg, left: left, bottom: bottom, plot: plot, microseconds: bounds.end - bounds.start)
    legend(&svg, spans, right: left + plot)
    return svg.finished()
  }

  private func summary(_ trace: Trace, _ spans: [Trace.Span], _ steps: [Int]) -> String {
    guard let first = steps.first, let last = steps.last, !spans.isEmpty else {
      return "no actions"
    }
    var drawn = Trace(processes: trace.processes)
    for span in spans { drawn.add(span) }
    let microBatches = Set(spans.map(\.action.microBatch)).count
    let bubble = drawn.bubble().map { "\(SVG.number(($0 * 1000).rounded() / 10)) %" } ?? "unknown"
    let name = first == last ? "step \(first)" : "steps \(first) to \(last)"
    return "\(name): \(trace.processes.count) processes, \(microBatches) micro-batches, "
      + "bubble measured \(bubble)"
  }

  private func axis(
    _ svg: inout SVG, left: Double, bottom: Double, plot: Double, microseconds: Int64
  ) {
    let milliseconds = Double(microseconds) / 1000
    svg.line(left, bottom, left + plot, bottom, class: "axis")
    guard milliseconds > 0 else { return }
    for tick in Axis.ticks(0...milliseconds, count: max(2, Int(plot / 110))) {
      let x = left + tick / milliseconds * plot
      svg.line(x, bottom, x, bottom + 5, class: "axis")
      svg.label(Axis.text(tick), x, bottom + 18, size: 11, anchor: "middle", class: "soft")
    }
    svg.label("milliseconds", left + plot, bottom + 36, size: 11, anchor: "end", class: "soft")
  }

  private func legend(_ svg: inout SVG, _ spans: [Trace.Span], right: Double) {
    let kinds = Set(spans.map(\.action.kind))
    let names: [(Action.Kind, String)] = [
      (.forward, "forward"), (.backward, "backward"), (.backwardInput, "input's gradient"),
      (.backwardWeight, "weights' gradient"),
    ]
    var entries = names.filter { kinds.contains($0.0) }.map { (Self.style($0.0), $0.1) }
    entries.append(("idle", "idle"))
    var x = right
    for (style, name) in entries.reversed() {
      x -= 6.4 * Double(name.count)
      svg.label(name, x, 26, size: 12)
      x -= 18
      svg.rectangle(x, 16, 13, 12, class: style == "idle" ? style : "box \(style)")
      x -= 14
    }
  }

  private static func style(_ kind: Action.Kind) -> String {
    switch kind {
    case .forward: "f"
    case .backward: "b"
    case .backwardInput: "i"
    case .backwardWeight: "w"
    }
  }

  private static func style(_ action: Action) -> String {
    style(action.kind) + (action.chunk == 0 ? "" : " c\(min(action.chunk, 3))")
  }

  private static let style = """
    .ground { fill: #ffffff } .ink { fill: #1b1f24 } .soft { fill: #57606a }
    .strong { font-weight: 600 } .idle { fill: #eef0f3 } .axis { stroke: #8c959f }
    .box { stroke: #ffffff; stroke-width: 0.6 } .number { fill: #ffffff }
    .f { fill: #2f6fbf } .b { fill: #c4532b } .i { fill: #d07a1c } .w { fill: #2d8a5f }
    .c1 { fill-opacity: 0.78 } .c2 { fill-opacity: 0.62 } .c3 { fill-opacity: 0.5 }
    @media (prefers-color-scheme: dark) {
    .ground { fill: #14181d } .ink { fill: #e6e9ed } .soft { fill: #9aa4af }
    .idle { fill: #232a32 } .axis { stroke: #66707b } .box { stroke: #14181d }
    }
    """
}
