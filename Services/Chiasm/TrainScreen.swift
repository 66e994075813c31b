import Sequencer
import Synchronization
import Training

/// What `chiasm train` shows: a line of every step and of everything that befalls the run; on a
/// terminal, under them, the state of the moment.
final class TrainScreen: Sendable {
  private struct State {
    var start = TrainingStart()
    /// Lines of the moment's state on the screen, to be drawn over.
    var shown = 0
    var lastStep: (log: TrainingLog, steps: Int, remaining: Double?)?
    var firstLoss: Double?
  }

  private let isLive = Terminal.outputIsShown
  private let state = Mutex(State())

  func show(_ event: TrainingEvent) {
    switch event {
    case .started(let start):
      state.withLock { $0.start = start }
      put(TrainScreen.text(start))
    case .step(let log, let steps, let remaining):
      state.withLock { $0.lastStep = (log, steps, remaining) }
      // The terminal has them in the block below.
      if !isLive { put(TrainScreen.line(log, steps, remaining)) } else { draw() }
    case .saved(let path, let step, let bytes, let seconds):
      put("checkpoint of step \(step): \(path) (\(Bytes(bytes)), \(Seconds(seconds)))")
    case .notice(let text): put(text)
    case .warning(let text): put("warning: \(text)")
    case .lost(let step, let reason): put("step \(step) lost a stage: \(reason)")
    case .recovered(let step, let source): put("everybody is back; after step \(step) of \(source)")
    case .ended(let end): put(TrainScreen.text(end))
    }
  }

  /// A line of text above the state of the moment.
  func put(_ text: String) {
    state.withLock { state in
      Terminal.write(erase(state.shown) + text + "\n")
      state.shown = 0
    }
    if isLive { draw() }
  }

  private func draw() {
    state.withLock { state in
      guard let (log, steps, remaining) = state.lastStep else { return }
      let width = Terminal.width
      let lines = TrainScreen.block(log, steps, remaining, width: width)
      Terminal.write(erase(state.shown) + lines.joined(separator: "\n") + "\n")
      state.shown = lines.count
    }
  }

  private func erase(_ lines: Int) -> String {
    lines > 0 ? "\u{1B}[\(lines)A\u{1B}[J" : ""
  }

  // MARK: Words

  private static func text(_ start: TrainingStart) -> String {
    var text =
      "\(Several(start.steps, "step")), \(Several(start.samples, "sample")) an epoch, "
      + "\(Several(start.microBatches, "micro-batch", "micro-batches")) a step; "
      + "\(Count(start.trainedParameters)) of "
      + "\(Count(start.parameters)) parameters trained in \(start.stages.count) "
      + (start.stages.count == 1 ? "process" : "processes, \(start.schedule)")
    if start.leftOut > 0 {
      text += "\n\(Several(start.leftOut, "sample")) of an epoch left out, for they make no whole "
      text += "step; others in every epoch"
    }
    if start.step > 0 { text += "\ngoing on after step \(start.step)" }
    return text
  }

  private static func text(_ end: TrainingEnd) -> String {
    let place = end.checkpoint.map { "; \($0)" } ?? ""
    return switch end.reason {
    case .finished: "done: \(Several(end.step, "step"))\(place)"
    case .stopped: "stopped after step \(end.step) of \(end.steps), go on with --resume\(place)"
    case .interrupted:
      "interrupted after step \(end.step) of \(end.steps), go on with --resume\(place)"
    }
  }

  private static func measures(_ log: TrainingLog, _ remaining: Double?) -> [String] {
    var parts: [String] = []
    if let rate = log.tokensPerSecond { parts.append("\(Rate(rate)) tokens/s") }
    if let rate = log.samplesPerSecond { parts.append("\(Rate(rate)) samples/s") }
    if let share = log.flopUtilization { parts.append("FLOP \(Percent(share))") }
    if let bubble = log.bubble {
      let scheduled = log.scheduledBubble.map { " (\(Percent($0)) scheduled)" } ?? ""
      parts.append("bubble \(Percent(bubble))\(scheduled)")
    }
    if let remaining { parts.append("ETA \(Seconds(remaining))") }
    return parts
  }

  /// Parts of the loss, where it is not the answers' alone.
  private static func parts(_ log: TrainingLog) -> [String] {
    var parts: [String] = []
    if let loss = log.answerLoss { parts.append("answers \(Rate(loss, digits: 4))") }
    if let loss = log.patchClassLoss {
      let share = log.patchAccuracy.map { " (\(Percent($0)) right)" } ?? ""
      parts.append("patches \(Rate(loss, digits: 4))\(share)")
    }
    if let loss = log.namingLoss { parts.append("naming \(Rate(loss, digits: 4))") }
    return parts
  }

  static func line(_ log: TrainingLog, _ steps: Int, _ remaining: Double?) -> String {
    ([
      "step \(log.step)/\(steps)", "loss \(Rate(log.loss, digits: 5))",
      "lr \(Scientific(log.learningRate))", "grad norm \(Rate(log.gradNorm))",
    ]
      + parts(log) + measures(log, remaining)).joined(separator: "  ")
  }

  /// The state of the moment, no line wider than the terminal.
  static func block(
    _ log: TrainingLog, _ steps: Int, _ remaining: Double?, width: Int
  ) -> [String] {
    let share = steps > 0 ? Double(log.step) / Double(steps) : 0
    let cells = max(0, min(40, width - 24))
    let full = Int(share * Double(cells))
    let bar = String(repeating: "█", count: full) + String(repeating: "░", count: cells - full)
    var lines = [
      "\(bar) \(log.step)/\(steps)",
      "loss \(Rate(log.loss, digits: 5))  lr \(Scientific(log.learningRate))  "
        + "grad norm \(Rate(log.gradNorm))",
      parts(log).joined(separator: "  "),
      measures(log, remaining).joined(separator: "  "),
    ].filter { !$0.isEmpty }
    if !log.memory.isEmpty {
      lines.append(
        "memory " + log.memory.map { "\($0.process) \(Bytes($0.bytes))" }.joined(separator: "  "))
    }
    return lines.map { String($0.prefix(max(1, width))) }
  }
}

/// A number of things, with the word for them.
struct Several: CustomStringConvertible {
  let description: String

  /// - Parameter many: nil: the word with an s.
  init(_ count: Int, _ one: String, _ many: String? = nil) {
    description = count == 1 ? "1 \(one)" : "\(count) \(many ?? one + "s")"
  }
}

/// A share as a percentage.
struct Percent: CustomStringConvertible {
  let value: Double?

  init(_ value: Double?) { self.value = value }

  var description: String {
    guard let value, value.isFinite else { return "–" }
    return "\(Int((value * 100).rounded())) %"
  }
}

/// A number with a few digits that count.
struct Rate: CustomStringConvertible {
  let value: Double
  let digits: Int

  init(_ value: Double, digits: Int = 3) {
    self.value = value
    self.digits = digits
  }

  var description: String {
    guard value.isFinite, abs(value) < 1e15 else { return "\(value)" }
    if value != 0, abs(value) < 1e-3 { return "\(Scientific(value))" }
    var places = digits - 1
    var bound = 10.0
    while places > 0, abs(value) >= bound {
      places -= 1
      bound *= 10
    }
    return Rate.fixed(value, places: places)
  }

  /// With exactly so many places behind the point.
  static func fixed(_ value: Double, places: Int) -> String {
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = Int64((abs(value) * scale).rounded())
    let sign = value < 0 && scaled != 0 ? "-" : ""
    guard places > 0 else { return sign + "\(scaled)" }
    let divisor = Int64(scale)
    let fraction = "\(scaled % divisor)"
    return sign + "\(scaled / divisor)."
      + String(repeating: "0", count: places - fraction.count) + fraction
  }
}

/// As 1.00e-05.
struct Scientific: CustomStringConvertible {
  let value: Double

  init(_ value: Double) { self.value = value }

  var description: String {
    guard value.isFinite, value != 0 else { return "\(value)" }
    var exponent = 0
    var mantissa = abs(value)
    while mantissa >= 9.995 {
      mantissa /= 10
      exponent += 1
    }
    while mantissa < 0.9995, exponent > -400 {
      mantissa *= 10
      exponent -= 1
    }
    let digits = "\(abs(exponent))"
    return (value < 0 ? "-" : "") + Rate.fixed(mantissa, places: 2)
      + (exponent < 0 ? "e-" : "e+") + (digits.count < 2 ? "0" + digits : digits)
  }
}

/// A duration in its two largest units.
struct Seconds: CustomStringConvertible {
  let value: Double

  init(_ value: Double) { self.value = value }

  var description: String {
    guard value.isFinite, value >= 0, value < 1e12 else { return "–" }
    if value < 60 { return value < 10 ? "\(Rate(value, digits: 2)) s" : "\(Int(value)) s" }
    let whole = Int(value)
    if whole < 3600 { return "\(whole / 60)m\(whole % 60)s" }
    if whole < 86400 { return "\(whole / 3600)h\(whole % 3600 / 60)m" }
    return "\(whole / 86400)d\(whole % 86400 / 3600)h"
  }
}

/// A number of bytes.
struct Bytes: CustomStringConvertible {
  let value: Int

  init(_ value: Int) { self.value = value }

  var description: String {
    var amount = Double(value)
    for unit in ["B", "KiB", "MiB", "GiB"] {
      if amount < 1000 { return unit == "B" ? "\(value) B" : "\(Rate(amount)) \(unit)" }
      amount /= 1024
    }
    return "\(Rate(amount)) TiB"
  }
}

/// A large number of things.
struct Count: CustomStringConvertible {
  let value: Int

  init(_ value: Int) { self.value = value }

  var description: String {
    switch value {
    case 1_000_000_000...: "\(Rate(Double(value) / 1e9)) billion"
    case 1_000_000...: "\(Rate(Double(value) / 1e6)) million"
    default: "\(value)"
    }
  }
}
