import ArgumentParser
import Checkpoint
import InternVL
import Kernels
import Messages
import Sequencer
import Tensors
import TrainingData

/// `chiasm compare`: how far one model's predictions are from another's.
struct Compare: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure how far a model's predictions are from another's.",
    discussion: """
      Both models read the same text, token by token, and their distributions of each next token \
      are compared: the Kullback-Leibler divergence of the second from the first in nats, and how \
      often both hold the same token for the most probable. With --data the answers of samples in \
      the training format count, pictures included; without, answers that the first model gives.
      """)

  @Argument(help: ArgumentHelp("Folder of the model to compare with.", valueName: "model"))
  var model: String

  @Argument(help: ArgumentHelp("Folder of the other, of the same shape.", valueName: "other"))
  var other: String

  @OptionGroup var texts: ComparisonTexts

  func run() throws {
    try texts.compare(model, other)
  }
}

/// What two models are compared on.
struct ComparisonTexts: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Samples, one JSON object a line, pictures beside the file; or a meta file (.json).",
      valueName: "file"))
  var data: String?

  @Option(
    help: ArgumentHelp(
      "Prompts to answer, one a line, instead of built-in ones.",
      valueName: "file"))
  var prompts: String?

  @Flag(help: "With --data: all tokens count, not the answers' alone.")
  var allTokens = false

  @Option(help: ArgumentHelp("Predictions to compare.", valueName: "n"))
  var positions = 2048

  @Option(help: ArgumentHelp("Tokens of an answer at most, without --data.", valueName: "n"))
  var maxNewTokens = 64

  @Option(
    name: .customLong("max-seq-length"),
    help: ArgumentHelp("Tokens of a sample at most.", valueName: "n"))
  var maxSequenceLength = 2048

  @Option(
    help: ArgumentHelp("cpu, cpu:bf16 (rounds inputs of products) or cuda:N.", valueName: "device"))
  var device = "cpu"

  @Option(help: ArgumentHelp("Threads (default: all cores).", valueName: "n"))
  var threads: Int?

  func validate() throws {
    for (name, value) in [
      ("--positions", positions), ("--max-new-tokens", maxNewTokens),
      ("--max-seq-length", maxSequenceLength), ("--threads", threads ?? 1),
    ] where value < 1 {
      throw ValidationError("\(name) must be at least 1")
    }
    if data != nil, prompts != nil {
      throw ValidationError("give one of --data and --prompts")
    }
    if allTokens, data == nil { throw ValidationError("--all-tokens goes with --data") }
  }

  /// Compares, and prints what came of it.
  func compare(_ model: String, _ other: String) throws {
    let (first, second) = (
      try ModelConfiguration.load(folder: model), try ModelConfiguration.load(folder: other)
    )
    guard first.vision == second.vision, first.language == second.language,
      first.imageTokenCount == second.imageTokenCount
    else { throw ValidationError("\(other) has another shape than \(model)") }
    // Of several sequences while the model answers, else of one.
    let sequences = data == nil ? ComparisonTexts.batch : 1
    let room = min(first.language.contextLength, maxSequenceLength)
    let device = try Devices.make(device, threads: threads ?? Machine.cores)
    let models = try [model, other].map {
      try InternVLModel(folder: $0, device: device, cacheTokens: sequences * room)
    }
    let builder = try PromptBuilder(modelFolder: model)
    let comparison = ModelComparison(
      reference: models[0], other: models[1], placeholder: builder.imageTokenID)
    let distance =
      try data == nil
      ? compareAnswers(comparison, builder, room)
      : compareSamples(comparison, model, room)
    if Terminal.errorsAreShown { Terminal.saySoFar("") }
    guard distance.count > 0 else {
      throw ValidationError("the texts have no token to predict")
    }
    Terminal.write(ComparisonTexts.report(distance) + "\n")
  }

  private static let batch = 8

  private func tell(_ distance: PredictionDistance) {
    guard Terminal.errorsAreShown else { return }
    Terminal.saySoFar("compared \(distance.count) of \(positions) predictions")
  }

  private func compareSamples(
    _ comparison: ModelComparison, _ folder: String, _ room: Int
  ) throws -> PredictionDistance {
    let file = data ?? ""
    var options = DataOptions()
    options.maxSequenceLength = room
    let source = try SampleSource(
      meta: file.hasSuffix(".json") ? MetaFile(path: file) : MetaFile(annotation: file),
      modelFolder: folder, options: options)
    var distance = PredictionDistance()
    for index in 0..<source.count {
      let sample = try source.load(index)
      var left = positions - distance.count
      // The answers' tokens alone, unless all count; pictures' places are never predicted.
      let counts = zip(sample.ids, sample.labels).enumerated().map { place, token in
        let isLearnt = token.1 != SampleEncoder.ignored
        let isText = allTokens && token.0 != comparison.placeholder
        guard place > 0, left > 0, isLearnt || isText else { return false }
        left -= 1
        return true
      }
      try comparison.add(
        sample.ids, pixels: sample.pixels, counts: counts, to: &distance)
      tell(distance)
      if distance.count >= positions { break }
    }
    return distance
  }

  private func compareAnswers(
    _ comparison: ModelComparison, _ builder: PromptBuilder, _ room: Int
  ) throws -> PredictionDistance {
    let questions = try prompts.map(ComparisonTexts.lines) ?? ComparisonTexts.questions
    let encoded = try questions.map {
      try builder.build(turns: [ChatTurn(role: "user", text: $0)], files: []).tokens
    }
    guard let longest = encoded.map(\.count).max(), longest < room else {
      throw ValidationError("the prompts are longer than \(room) tokens, or there are none")
    }
    var distance = PredictionDistance()
    // Every round takes another first token, so that no answer comes twice.
    for rank in 0..<512 {
      for start in stride(from: 0, to: encoded.count, by: ComparisonTexts.batch) {
        let prompts = Array(encoded[start..<min(start + ComparisonTexts.batch, encoded.count)])
        let texts = try comparison.continuations(
          of: prompts, rank: rank, limit: min(maxNewTokens, room - longest),
          ends: builder.endTokens)
        for (prompt, text) in zip(prompts, texts) {
          // The first token is the model's own choice in the first round alone.
          let first = prompt.count + (rank == 0 ? 0 : 1)
          let last = first + positions - distance.count
          try comparison.add(
            text, pixels: nil, counts: text.indices.map { $0 >= first && $0 < last },
            to: &distance)
          tell(distance)
          if distance.count >= positions { return distance }
        }
      }
    }
    return distance
  }

  static func report(_ distance: PredictionDistance) -> String {
    let losses = distance.meanLosses
    return """
      predictions            \(distance.count)
      same first choice      \(percent(distance.agreement)) %
      KL divergence, mean    \(nats(distance.mean)) nats
      KL divergence, 99 %    \(nats(distance.percentile(0.99))) nats
      cross entropy          \(nats(losses.reference)) → \(nats(losses.other)) nats
      """
  }

  private static func percent(_ fraction: Double) -> String {
    let hundredths = Int((fraction * 10_000).rounded(.down))
    return "\(hundredths / 100).\(hundredths % 100 / 10)\(hundredths % 10)"
  }

  /// Six digits behind the point.
  private static func nats(_ value: Double) -> String {
    let millionths = "\(Int((value * 1e6).rounded()))"
    let padded = String(repeating: "0", count: max(0, 7 - millionths.count)) + millionths
    return "\(padded.dropLast(6)).\(padded.suffix(6))"
  }

  private static func lines(_ path: String) throws -> [String] {
    let text = String(decoding: try readFile(path, limit: 16 << 20), as: UTF8.self)
    return text.split(whereSeparator: \.isNewline).map { String($0) }
  }

  private static let questions = [
    "Describe the sea to somebody who has never seen it.",
    "What should one know before climbing a mountain?",
    "Write a short letter to a friend who has moved away.",
    "Explain how a bicycle stays upright.",
    "请介绍一下你自己。",
    "Name three uses of copper and say why it is suited for them.",
    "Why is the sky blue in the day and red in the evening?",
    "List the steps of baking bread.",
  ]
}
