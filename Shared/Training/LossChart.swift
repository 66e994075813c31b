#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Foundation
#endif

/// Curves over the steps of training: every value as a dot, a smoothed line over them.
public struct LossChart: Sendable {
  public struct Series: Sendable {
    public var name: String
    public var points: [(x: Double, y: Double)]

    public init(name: String, points: [(x: Double, y: Double)]) {
      self.name = name
      self.points = points
    }

    /// The losses of a log, by step.
    public init(name: String, log: [TrainingLog]) {
      self.init(name: name, points: log.map { (Double($0.step), $0.loss) })
    }
  }

  public var title: String
  public var xLabel: String
  public var yLabel: String
  public var isLogarithmic: Bool
  /// Weight of what came before in the line, as TensorBoard's slider; 0: no smoothing.
  public var smoothing: Double
  public var width: Double
  public var height: Double

  /// Dots of a series at most; the line is drawn through all values.
  private static let dotLimit = 2000

  public init(
    title: String = "Loss", xLabel: String = "step", yLabel: String = "loss",
    isLogarithmic: Bool = false, smoothing: Double = 0.9, width: Double = 900,
    height: Double = 480
  ) {
    self.title = title
    self.xLabel = xLabel
    self.yLabel = yLabel
    self.isLogarithmic = isLogarithmic
    self.smoothing = smoothing
    self.width = width
    self.height = height
  }

  /// Values that are not finite, and on a logarithmic axis those not above 0, are left out.
  public func svg(_ series: [Series]) -> String {
    let shown = series.map { series in
      Series(
        name: series.name,
        points: series.points.filter {
          $0.x.isFinite && $0.y.isFinite && (!isLogarithmic || $0.y > 0)
        })
    }
    let all = shown.flatMap(\.points)
    let frame = Frame(chart: self, points: all)
    var svg = SVG(width: width, height: height, title: title, style: Self.style)
    svg.label(title, frame.left, 26, size: 16, class: "ink strong")
    axes(&svg, frame)
    for (index, series) in shown.enumerated() {
      draw(&svg, series, frame, colour: index % Self.colours)
    }
    legend(&svg, shown)
    if all.isEmpty {
      svg.label("no values", width / 2, height / 2, size: 14, anchor: "middle", class: "soft")
    }
    return svg.finished()
  }

  /// What to call the curves of some logs: the folders that the logs lie in, or the files'
  /// paths where those do not tell them apart.
  public static func names(ofLogs paths: [String]) -> [String] {
    let folders = paths.map { path in
      let parts = path.split(separator: "/")
      return String(parts.count > 1 ? parts[parts.count - 2] : parts.last ?? "")
    }
    return Set(folders).count == paths.count ? folders : paths
  }

  /// Exponential moving average, corrected for its start at 0 as Adam's moments are.
  static func smoothed(_ values: [Double], weight: Double) -> [Double] {
    guard weight > 0, weight < 1 else { return values }
    var mean = 0.0
    var norm = 0.0
    return values.map { value in
      mean = weight * mean + (1 - weight) * value
      norm = weight * norm + (1 - weight)
      return mean / norm
    }
  }

  /// Where values lie in the picture.
  private struct Frame {
    let left = 64.0
    let top = 44.0
    let right: Double
    let bottom: Double
    let xs: ClosedRange<Double>
    let ys: ClosedRange<Double>
    let isLogarithmic: Bool

    init(chart: LossChart, points: [(x: Double, y: Double)]) {
      right = chart.width - 20
      bottom = chart.height - 48
      isLogarithmic = chart.isLogarithmic
      xs = Frame.widened(points.map(\.x))
      if chart.isLogarithmic {
        let values = Frame.widened(points.map { log10($0.y) })
        ys = pow(10, values.lowerBound)...pow(10, values.upperBound)
      } else {
        let values = Frame.widened(points.map(\.y))
        // A loss is read against 0 when 0 is near.
        let isNear = values.lowerBound > 0 && values.lowerBound < values.upperBound * 0.4
        ys = (isNear ? 0 : values.lowerBound)...values.upperBound
      }
    }

    private static func widened(_ values: [Double]) -> ClosedRange<Double> {
      guard let low = values.min(), let high = values.max() else { return 0...1 }
      guard high > low, (high - low).isFinite else {
        let margin = max(1, abs(low) * 0.5)
        return low - margin...low + margin
      }
      return low...high
    }

    func x(_ value: Double) -> Double {
      left + (value - xs.lowerBound) / (xs.upperBound - xs.lowerBound) * (right - left)
    }

    func y(_ value: Double) -> Double {
      let share =
        isLogarithmic
        ? log(value / ys.lowerBound) / log(ys.upperBound / ys.lowerBound)
        : (value - ys.lowerBound) / (ys.upperBound - ys.lowerBound)
      return bottom - share * (bottom - top)
    }
  }

  private func axes(_ svg: inout SVG, _ frame: Frame) {
    let yTicks =
      isLogarithmic ? Axis.logarithmicTicks(frame.ys) : Axis.ticks(frame.ys, count: 6)
    for tick in yTicks {
      svg.line(frame.left, frame.y(tick), frame.right, frame.y(tick), class: "grid")
      svg.label(
        Axis.text(tick), frame.left - 8, frame.y(tick) + 4, size: 11, anchor: "end", class: "soft")
    }
    svg.line(frame.left, frame.bottom, frame.right, frame.bottom, class: "axis")
    for tick in Axis.ticks(frame.xs, count: 8) {
      svg.line(frame.x(tick), frame.bottom, frame.x(tick), frame.bottom + 5, class: "axis")
      svg.label(
        Axis.text(tick), frame.x(tick), frame.bottom + 18, size: 11, anchor: "middle",
        class: "soft")
    }
    svg.label(xLabel, frame.right, frame.bottom + 36, size: 12, anchor: "end", class: "soft")
    let middle = (frame.top + frame.bottom) / 2
    svg.add(
      "<text class=\"soft\" font-size=\"12\" text-anchor=\"middle\" transform=\"translate(16 "
        + "\(SVG.number(middle))) rotate(-90)\">\(SVG.escaped(yLabel))</text>")
  }

  private func draw(_ svg: inout SVG, _ series: Series, _ frame: Frame, colour: Int) {
    let points = series.points
    guard !points.isEmpty else { return }
    let every = (points.count + Self.dotLimit - 1) / Self.dotLimit
    let radius = points.count > 400 ? 1.2 : 2
    if smoothing > 0 || points.count == 1 {
      var dots = "<g class=\"dot s\(colour)\">"
      for index in stride(from: 0, to: points.count, by: every) {
        let (x, y) = (frame.x(points[index].x), frame.y(points[index].y))
        dots += "<circle cx=\"\(SVG.number(x))\" cy=\"\(SVG.number(y))\" r=\"\(radius)\"/>"
      }
      svg.add(dots + "</g>")
    }
    let line = LossChart.smoothed(points.map(\.y), weight: smoothing)
    let path = zip(points, line).map { point, y in
      "\(SVG.number(frame.x(point.x))),\(SVG.number(frame.y(y)))"
    }
    svg.add(
      "<polyline class=\"line s\(colour)\" points=\"\(path.joined(separator: " "))\"/>")
  }

  private func legend(_ svg: inout SVG, _ series: [Series]) {
    var x = width - 20
    for (index, series) in series.enumerated().reversed() where !series.name.isEmpty {
      x -= 6.6 * Double(series.name.count)
      svg.label(series.name, x, 26, size: 12)
      x -= 20
      svg.line(x, 22, x + 14, 22, class: "line s\(index % Self.colours)")
      x -= 14
    }
  }

  private static let colours = 6
  private static let style = """
    .ground { fill: #ffffff } .ink { fill: #1b1f24 } .soft { fill: #57606a }
    .strong { font-weight: 600 } .axis { stroke: #8c959f } .grid { stroke: #e4e7eb }
    .line { fill: none; stroke-width: 1.8; stroke-linejoin: round } .dot { fill-opacity: 0.3 }
    .line.s0 { stroke: #2f6fbf } .line.s1 { stroke: #c4532b } .line.s2 { stroke: #2d8a5f }
    .line.s3 { stroke: #8250b8 } .line.s4 { stroke: #b0851a } .line.s5 { stroke: #57606a }
    .dot.s0 { fill: #2f6fbf } .dot.s1 { fill: #c4532b } .dot.s2 { fill: #2d8a5f }
    .dot.s3 { fill: #8250b8 } .dot.s4 { fill: #b0851a } .dot.s5 { fill: #57606a }
    @media (prefers-color-scheme: dark) {
    .ground { fill: #14181d } .ink { fill: #e6e9ed } .soft { fill: #9aa4af }
    .axis { stroke: #66707b } .grid { stroke: #2a323b } .dot { fill-opacity: 0.45 }
    }
    """
}
