/// One step in train_log.jsonl and in TensorBoard, under Hugging Face's names.
public struct TrainingLog: Sendable, Equatable {
  /// Updates made, this one included.
  public var step: Int
  public var epoch: Double
  public var loss: Double
  /// Parts of the loss, each without its weight, where it is not the answers' alone.
  public var answerLoss: Double?
  public var patchClassLoss: Double?
  /// Share of the patches of the group `what` with a class above 0 whose class is found.
  public var patchAccuracy: Double?
  public var namingLoss: Double?
  public var learningRate: Double
  /// Before clipping.
  public var gradNorm: Double
  public var tokensPerSecond: Double?
  public var samplesPerSecond: Double?
  /// Share of the peak of all processes' arithmetic.
  public var flopUtilization: Double?
  /// Share of the processes' time in which they idle, as measured, of those that have work in the
  /// step.
  public var bubble: Double?
  /// The same if the step's actions had taken as long as they did and nothing had waited for
  /// messages: the schedule's part of ``bubble``, uneven stages included.
  public var scheduledBubble: Double?
  public var stepSeconds: Double?
  /// Labelled tokens of the step.
  public var labelledTokens: Int?
  /// Bytes by process.
  public var memory: [(process: String, bytes: Int)]
  /// Anything else: a skipped step's reason, names of samples.
  public var notes: [(name: String, text: String)]

  public init(step: Int, epoch: Double, loss: Double, learningRate: Double, gradNorm: Double) {
    self.step = step
    self.epoch = epoch
    self.loss = loss
    self.learningRate = learningRate
    self.gradNorm = gradNorm
    memory = []
    notes = []
  }

  public static func == (a: TrainingLog, b: TrainingLog) -> Bool { a.line == b.line }

  /// A JSON object without a newline. Numbers are the shortest that read back as the same Double;
  /// what is not finite is written as Python's json does: NaN, Infinity, -Infinity.
  public var line: String {
    var fields: [(String, String)] = [
      ("loss", TrainingLog.text(loss)), ("grad_norm", TrainingLog.text(gradNorm)),
      ("learning_rate", TrainingLog.text(learningRate)), ("epoch", TrainingLog.text(epoch)),
      ("step", "\(step)"),
    ]
    for (name, value) in parts { fields.append((name, TrainingLog.text(value))) }
    for (name, value) in measures { fields.append((name, TrainingLog.text(value))) }
    if let labelledTokens { fields.append(("labelled_tokens", "\(labelledTokens)")) }
    if !memory.isEmpty {
      let entries = memory.map { "\(JSONText.quoted($0.process)): \($0.bytes)" }
      fields.append(("memory", "{" + entries.joined(separator: ", ") + "}"))
    }
    for (name, text) in notes { fields.append((name, JSONText.quoted(text))) }
    let members = fields.map { "\(JSONText.quoted($0.0)): \($0.1)" }
    return "{" + members.joined(separator: ", ") + "}"
  }

  /// Scalars for TensorBoard, named as Hugging Face's callback names them: `train/loss` ….
  public var scalars: [(tag: String, value: Double)] {
    var scalars = [
      ("train/loss", loss), ("train/grad_norm", gradNorm),
      ("train/learning_rate", learningRate), ("train/epoch", epoch),
    ]
    scalars += parts.map { ("train/" + $0.0, $0.1) }
    scalars += measures.map { ("train/" + $0.0, $0.1) }
    scalars += memory.map { ("memory/" + $0.process, Double($0.bytes)) }
    return scalars
  }

  /// Of the loss.
  private var parts: [(String, Double)] {
    [
      ("answer_loss", answerLoss), ("patch_class_loss", patchClassLoss),
      ("patch_accuracy", patchAccuracy), ("naming_loss", namingLoss),
    ].compactMap { name, value in value.map { (name, $0) } }
  }

  private var measures: [(String, Double)] {
    [
      ("tokens_per_second", tokensPerSecond), ("samples_per_second", samplesPerSecond),
      ("flop_utilization", flopUtilization), ("bubble", bubble),
      ("scheduled_bubble", scheduledBubble), ("step_seconds", stepSeconds),
    ].compactMap { name, value in value.map { (name, $0) } }
  }

  private static func text(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value > 0 ? "Infinity" : "-Infinity" }
    return "\(value)"
  }
}

extension TrainingLog {
  /// Bytes of a line that are read at most.
  static let lineLimit = 1 << 20

  /// Reads a line. Unknown names are passed over unless they are texts, which become notes.
  ///
  /// - Throws: ``TrainingError/invalidLogLine(line:reason:)``.
  public init(line text: some StringProtocol, number: Int = 1) throws {
    func refuse(_ reason: String) -> TrainingError { .invalidLogLine(line: number, reason: reason) }
    let utf8 = Array(text.utf8)
    guard utf8.count <= TrainingLog.lineLimit else {
      throw refuse("\(utf8.count) bytes, \(TrainingLog.lineLimit) at most")
    }
    let value: JSONText
    do {
      value = try JSONText.parse(utf8)
    } catch let error as TrainingError {
      throw refuse("\(error)")
    }
    guard case .object(let members) = value else { throw refuse("no JSON object") }
    func measure(_ name: String) -> Double? {
      members.last { $0.0 == name }?.1.double
    }
    func required(_ name: String) throws -> Double {
      guard let value = measure(name) else { throw refuse("no number \"\(name)\"") }
      return value
    }
    guard let step = Int(exactly: try required("step")), step >= 0 else {
      throw refuse("step is no count")
    }
    self.init(
      step: step, epoch: measure("epoch") ?? 0, loss: try required("loss"),
      learningRate: measure("learning_rate") ?? 0, gradNorm: measure("grad_norm") ?? 0)
    answerLoss = measure("answer_loss")
    patchClassLoss = measure("patch_class_loss")
    patchAccuracy = measure("patch_accuracy")
    namingLoss = measure("naming_loss")
    tokensPerSecond = measure("tokens_per_second")
    samplesPerSecond = measure("samples_per_second")
    flopUtilization = measure("flop_utilization")
    bubble = measure("bubble")
    scheduledBubble = measure("scheduled_bubble")
    stepSeconds = measure("step_seconds")
    labelledTokens = measure("labelled_tokens").flatMap { Int(exactly: $0) }
    for (name, value) in members {
      switch value {
      case .object(let entries) where name == "memory":
        memory = entries.compactMap { process, bytes in
          bytes.double.flatMap { Int(exactly: $0) }.map { (process, $0) }
        }
      case .string(let text): notes.append((name, text))
      default: break
      }
    }
  }
}

extension TrainingLog {
  /// Bytes of a log that are read at most.
  public static let fileLimit = 1 << 30

  /// Reads a whole train_log.jsonl. Empty lines are passed over, and so is a last line without
  /// its end: a run was killed while writing it.
  ///
  /// - Throws: ``TrainingError/invalidLogLine(line:reason:)``.
  public static func read(_ bytes: [UInt8]) throws -> [TrainingLog] {
    guard bytes.count <= fileLimit else {
      throw TrainingError.invalidLogLine(
        line: 0, reason: "\(bytes.count) bytes in the file, \(fileLimit) at most")
    }
    let whole = bytes[..<(bytes.lastIndex(of: UInt8(ascii: "\n")) ?? 0)]
    let lines = whole.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    return try lines.enumerated().compactMap { index, line in
      guard line.contains(where: { $0 > 0x20 }) else { return nil }
      return try TrainingLog(line: String(decoding: line, as: UTF8.self), number: index + 1)
    }
  }
}
