import Checkpoint
import InternVL
import Logging
import Sequencer
import Text
import Training
import TrainingData
import Transport

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What pipelining is worth: two stages that train, each on a thread of its own, under 1F1B and
/// one action at a time, and the same model in one process with two threads.
///
/// All three take turns in every round, a step each. A step is what a training run has of it:
/// forward and backward passes of all micro-batches, the gradient's norm, and the update.
struct BenchTraining: Sendable {
  /// Model folder to take the tokenizer from.
  var tokenizer: String
  /// Rounds after the first, which does not count.
  var rounds: Int
  /// Where a picture of the last pipelined step goes.
  var picture: String?

  private static let stages = 2
  private static let microBatches = 16
  /// Words of a sample's answer.
  private static let words = 40

  /// Two language stages of like cost: the head costs about as much as a decoder layer, so that
  /// it makes up for the layer that the other stage has more. Nothing of the vision encoder is at
  /// work in text.
  ///
  /// - Throws: `CheckpointError`, `TextError` of the tokenizer's folder.
  private func configuration() throws -> ModelConfiguration {
    try ModelConfiguration(
      vision: VisionConfiguration(
        hiddenSize: 64, layerCount: 1, headCount: 4, intermediateSize: 128, imageSize: 56),
      language: LanguageConfiguration(
        hiddenSize: 384, layerCount: 5, headCount: 6, keyValueHeadCount: 6,
        intermediateSize: 1024,
        vocabularySize: max(8192, try Tokenizer(folder: tokenizer).vocabularySize)))
  }

  /// Seconds of one step of each kind, and what the stages did in the pipelined one.
  fileprivate struct Round: Sendable {
    var pipelined = 0.0
    var serial = 0.0
    var alone = 0.0
    var bubble = 0.0
    var scheduled = 0.0
    var evenness = 0.0
    var trace = Trace(processes: [])
  }

  /// - Returns: every round's seconds.
  func run() async throws -> JSONValue {
    guard Machine.cores >= BenchTraining.stages else {
      Terminal.say("training in a pipeline is not measured: this machine has one processor")
      return .null
    }
    let model = try TemporaryFolder.make(prefix: "chiasm-bench")
    defer { TemporaryFolder.remove(model) }
    let data = try TemporaryFolder.make(prefix: "chiasm-bench-data")
    defer { TemporaryFolder.remove(data) }
    let shape = try configuration()
    try RandomModel.write(
      shape, seed: 1, scalarType: .float32, to: model, tokenizerFolder: tokenizer,
      forTraining: true)
    var configuration = try BenchTraining.data(in: data)
    configuration.model = model
    let batch = try await DataSteps.checked(configuration) { _ in }.batch(after: 0)
    let cut = try BenchTraining.cut(shape, configuration)
    let measured = try await measure(model, cut, configuration, batch)
    try report(shape, cut, batch, measured)
    func numbers(_ part: KeyPath<Round, Double>) -> JSONValue {
      .array(measured.map { .number($0[keyPath: part]) })
    }
    return .object([
      ("samples", .integer(batch.plan.samples)), ("pipelined", numbers(\.pipelined)),
      ("serial", numbers(\.serial)), ("alone", numbers(\.alone)), ("bubble", numbers(\.bubble)),
    ])
  }

  // MARK: What is trained

  /// A text for each micro-batch: the same words in another order, so that all are of one length.
  private static func data(in folder: String) throws -> TrainingConfiguration {
    let list = ["a", "small", "cat", "sits", "under", "the", "green", "tree", "and", "waits"]
    let lines = (0..<microBatches).map { sample in
      let words = (0..<words).map { list[($0 * 3 + sample) % list.count] }
      return """
        {"conversations": [{"from": "human", "value": "What is there?"}, \
        {"from": "gpt", "value": "\(words.joined(separator: " "))"}]}
        """
    }
    let annotation = "\(folder)/samples.jsonl"
    let meta = "\(folder)/meta.json"
    try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(filePath: annotation))
    let object = JSONValue.object([
      (
        "samples",
        .object([("root", .string(folder)), ("annotation", .string(annotation))])
      )
    ])
    try Data(object.text.utf8).write(to: URL(filePath: meta))
    var configuration = TrainingConfiguration()
    configuration.meta = meta
    configuration.output = folder
    configuration.globalBatchSize = microBatches
    configuration.maxSequenceLength = 512
    configuration.dataloaderWorkers = 1
    return configuration
  }

  /// Layers of the stages, by what they cost.
  private static func cut(
    _ shape: ModelConfiguration, _ configuration: TrainingConfiguration
  ) throws -> [Range<Int>] {
    let costs = try StageProfile.measure(shape, configuration, folder: configuration.model)
    return try Balance.split(costs: costs.language, stages: stages, part: "language model")
  }

  // MARK: Measuring

  private func measure(
    _ model: String, _ cut: [Range<Int>], _ configuration: TrainingConfiguration,
    _ batch: StepBatch
  ) async throws -> [Round] {
    var shape = MeshShape(model: model)
    shape.languageStages = cut.count
    shape.languageSlices = cut
    shape.threads = 1
    let rounds = rounds
    let preparation = TrainingPreparation(options: TrainingOptions(configuration))
    let whole = InProcessStages(model: model, threads: cut.count)
    _ = try await whole.prepare(preparation)
    return try await LocalMesh.run(shape) { _, addresses in
      let session = try StageSession(
        model: model, addresses: addresses,
        logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() })
      do {
        let mesh = session.stages
        try await mesh.ready(within: .seconds(60))
        _ = try await mesh.prepare(preparation)
        let processes = try await mesh.placement().all.map(\.name)
        var measured: [Round] = []
        for number in 0...rounds {
          Terminal.say("training, round \(number) of \(rounds)")
          var round = Round()
          let step = 2 * number
          let outcome: StepOutcome
          (round.pipelined, outcome) = try await BenchTraining.step(
            step, batch, .oneForwardOneBackward, on: mesh)
          try round.note(outcome, of: step, processes)
          round.serial = try await BenchTraining.step(step + 1, batch, .serial, on: mesh).seconds
          round.alone = try await BenchTraining.step(number, batch, .serial, on: whole).seconds
          // The first round maps weights and makes the tensors that later ones use again.
          if number > 0 { measured.append(round) }
        }
        await session.close()
        return measured
      } catch {
        await session.close()
        throw error
      }
    }
  }

  private static func step(
    _ number: Int, _ batch: StepBatch, _ schedule: ScheduleKind, on stages: any TrainingStages
  ) async throws -> (seconds: Double, outcome: StepOutcome) {
    let clock = ContinuousClock()
    let began = clock.now
    let outcome = try await stages.step(
      StepWork(
        step: UInt64(number), microBatches: batch.plan.microBatches, schedule: schedule
      ) { index in
        throw RPCError(.internal, "micro-batch \(index) of texts was asked for pictures")
      })
    let norm = outcome.gradientNorm
    try await stages.update(
      ParameterUpdate(
        step: UInt64(number), learningRate: 1e-4, gradientScale: min(1, 1 / (norm + 1e-6))))
    return ((clock.now - began) / .seconds(1), outcome)
  }

  // MARK: What came of it

  private func report(
    _ shape: ModelConfiguration, _ cut: [Range<Int>], _ batch: StepBatch, _ rounds: [Round]
  ) throws {
    let parameters = WeightNames.all(shape).reduce(0) { $0 + $1.shape.reduce(1, *) }
    let rows = batch.plan.microBatches.map(\.rows)
    let samples = Double(batch.plan.samples)
    func rate(_ seconds: KeyPath<Round, Double>) -> Figure {
      Figure(samples / Spread(rounds.map { $0[keyPath: seconds] }).median)
    }
    let gain = Spread(rounds.map { $0.serial / $0.pipelined })
    let besideOne = Spread(rounds.map { $0.alone / $0.pipelined })
    let formula = Schedule.bubble(
      .oneForwardOneBackward, processes: cut.count, microBatches: rows.count)
    Terminal.write(
      """

      training, \(Count(parameters)) parameters in \(cut.count) language stages of \
      \(cut.map { "\($0.count)" }.joined(separator: " and ")) layers, a thread each; \
      \(rows.count) micro-batches of \(rows.min() ?? 0)–\(rows.max() ?? 0) tokens a step
        1f1b: \(rate(\.pipelined)) samples/s, one action at a time: \(rate(\.serial)) samples/s; \
      \(gain) times as many
        bubble of 1f1b: measured \(Percent(Spread(rounds.map(\.bubble)).median)), by its formula \
      \(Percent(formula)), of these durations without waiting \
      \(Percent(Spread(rounds.map(\.scheduled)).median)); stages are \
      \(Percent(Spread(rounds.map(\.evenness)).median)) even
        one process with \(cut.count) threads: \(rate(\.alone)) samples/s; 1f1b has \
      \(besideOne) times as many

      """)
    guard let picture, let last = rounds.last, let step = last.trace.steps.first else { return }
    let drawing = TraceDrawing(title: "1F1B, \(cut.count) stages, \(rows.count) micro-batches")
    try Data(drawing.svg(last.trace, step: step).utf8).write(to: URL(filePath: picture))
    Terminal.write("  picture of the last pipelined step: \(picture)\n")
  }
}

extension BenchTraining.Round {
  /// Takes in what the processes did that had work.
  fileprivate mutating func note(
    _ outcome: StepOutcome, of step: Int, _ processes: [String]
  ) throws {
    var whole = Trace(processes: processes)
    trace = Trace(
      processes: processes.indices.filter { !outcome.timings[$0].isEmpty }.map {
        processes[$0]
      })
    var busy: [Double] = []
    for (process, actions) in outcome.timings.enumerated() where !actions.isEmpty {
      for timed in actions {
        var span = Trace.Span(
          process: process, step: step, action: timed.action, start: Int64(timed.start),
          duration: Int64(timed.duration))
        whole.add(span)
        span.process = busy.count
        trace.add(span)
      }
      busy.append(Double(actions.reduce(0) { $0 + $1.duration }))
    }
    bubble = whole.bubble() ?? 0
    if let schedule = outcome.schedule {
      scheduled = try Simulation(schedule, replaying: whole, step: step).bubble
    }
    evenness = busy.reduce(0, +) / (Double(busy.count) * (busy.max() ?? 1))
  }
}

/// The middle of some measurements, with the least and the greatest.
struct Spread: CustomStringConvertible {
  let median: Double
  private let least: Double
  private let greatest: Double

  /// - Parameter values: not empty.
  init(_ values: [Double]) {
    let sorted = values.sorted()
    median = sorted[sorted.count / 2]
    least = sorted[0]
    greatest = sorted[sorted.count - 1]
  }

  var description: String { "\(Figure(median)) (\(Figure(least))–\(Figure(greatest)))" }
}
