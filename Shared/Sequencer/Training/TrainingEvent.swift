#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif
import Checkpoint
import Training

/// What a run tells whoever started it, as one JSON object a message.
public enum TrainingEvent: Sendable, Equatable {
  /// Before the first step.
  case started(TrainingStart)
  /// A step is done. `remaining` is the time until the run's end, in seconds.
  case step(TrainingLog, of: Int, remaining: Double?)
  /// A checkpoint is on disk.
  case saved(path: String, step: Int, bytes: Int, seconds: Double)
  /// Something to know; nothing to do.
  case notice(String)
  /// Something is wrong; the run goes on.
  case warning(String)
  /// A stage went away in mid-step.
  case lost(step: Int, reason: String)
  /// Everybody is back, and the state is that after `step`.
  case recovered(step: Int, from: String)
  case ended(TrainingEnd)
}

/// What a run is about to do.
public struct TrainingStart: Sendable, Equatable, Codable {
  public var output = ""
  /// Steps done already.
  public var step = 0
  public var steps = 0
  public var samples = 0
  /// Samples of an epoch that make no whole step, others in every epoch.
  public var leftOut = 0
  /// Samples of the data that are left out, for their flaws.
  public var skipped = 0
  public var parameters = 0
  public var trainedParameters = 0
  /// Names of the processes.
  public var stages: [String] = []
  /// Bytes held for training, by process.
  public var trainingBytes: [Int] = []
  public var schedule = ""
  public var microBatches = 0
  /// Measured, of all processors of the machine that runs the steps.
  public var peakFLOPS: Double?

  public init() {}
}

/// How a run ended.
public struct TrainingEnd: Sendable, Equatable, Codable {
  public enum Reason: String, Sendable, Codable {
    /// All steps are done.
    case finished
    /// `stopAfter`: there are more steps to come.
    case stopped
    /// Somebody asked for an end.
    case interrupted
  }

  public var reason: Reason
  /// Steps done.
  public var step: Int
  public var steps: Int
  /// Of the last step of this call.
  public var loss: Double?
  /// The last checkpoint.
  public var checkpoint: String?
  /// Whether the last step is on disk.
  public var isSaved: Bool

  public init(
    reason: Reason, step: Int, steps: Int, loss: Double?, checkpoint: String?, isSaved: Bool = true
  ) {
    self.reason = reason
    self.step = step
    self.steps = steps
    self.loss = loss
    self.checkpoint = checkpoint
    self.isSaved = isSaved
  }
}

extension TrainingEvent {
  /// The members of every kind of event but a step, flat.
  private struct Fields: Codable {
    var event: String
    var text: String?
    var step: Int?
    var steps: Int?
    var path: String?
    var bytes: Int?
    var seconds: Double?
    var start: TrainingStart?
    var end: TrainingEnd?
    /// Of a step.
    var remaining_seconds: Double?
  }

  private var fields: Fields {
    switch self {
    case .started(let start):
      return Fields(event: "started", start: start)
    case .step(_, let steps, let remaining):
      return Fields(event: "step", steps: steps, remaining_seconds: remaining)
    case .saved(let path, let step, let bytes, let seconds):
      return Fields(event: "saved", step: step, path: path, bytes: bytes, seconds: seconds)
    case .notice(let text): return Fields(event: "notice", text: text)
    case .warning(let text): return Fields(event: "warning", text: text)
    case .lost(let step, let reason): return Fields(event: "lost", text: reason, step: step)
    case .recovered(let step, let source):
      return Fields(event: "recovered", step: step, path: source)
    case .ended(let end): return Fields(event: "ended", end: end)
    }
  }

  /// The event as JSON. A step's has the members of the line in train_log.jsonl besides its own.
  public var json: [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.nonConformingFloatEncodingStrategy = TrainingEvent.floats
    guard let data = try? encoder.encode(fields) else { return Array("{}".utf8) }
    guard case .step(let log, _, _) = self else { return Array(data) }
    // Two objects in one.
    return data.dropLast() + Array(", ".utf8) + Array(log.line.utf8.dropFirst())
  }

  private static let floats = JSONEncoder.NonConformingFloatEncodingStrategy.convertToString(
    positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")

  /// - Throws: what is wrong with the JSON.
  public init(json: [UInt8]) throws {
    // Its line may have NaN in it, which the library's decoder does not take.
    if case .object(let members) = try JSONValue.parse(json, file: "an event"),
      case .string("step")? = members.first(where: { $0.0 == "event" })?.1
    {
      var log = try TrainingLog(line: String(decoding: json, as: UTF8.self))
      log.notes.removeAll { $0.name == "event" }
      func number(_ name: String) -> Double? {
        switch members.first(where: { $0.0 == name })?.1 {
        case .integer(let value)?: Double(value)
        case .number(let value)?: value
        default: nil
        }
      }
      self = .step(
        log, of: number("steps").flatMap { Int(exactly: $0) } ?? 0,
        remaining: number("remaining_seconds"))
      return
    }
    let decoder = JSONDecoder()
    decoder.nonConformingFloatDecodingStrategy = .convertFromString(
      positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    let fields = try decoder.decode(Fields.self, from: Data(json))
    switch fields.event {
    case "started": self = .started(fields.start ?? TrainingStart())
    case "saved":
      self = .saved(
        path: fields.path ?? "", step: fields.step ?? 0, bytes: fields.bytes ?? 0,
        seconds: fields.seconds ?? 0)
    case "warning": self = .warning(fields.text ?? "")
    case "lost": self = .lost(step: fields.step ?? 0, reason: fields.text ?? "")
    case "recovered": self = .recovered(step: fields.step ?? 0, from: fields.path ?? "")
    case "ended":
      self = .ended(
        fields.end
          ?? TrainingEnd(reason: .interrupted, step: 0, steps: 0, loss: nil, checkpoint: nil))
    default: self = .notice(fields.text ?? fields.event)
    }
  }
}
