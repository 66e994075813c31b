import ArgumentParser
import Checkpoint
import Kernels
import Logging
import Messages
import Sequencer
import Tensors
import Training
import Transport

/// `chiasm bench-party`: does one piece of work at a time for a program that measures several
/// parties in turn.
struct BenchParty: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench-party",
    abstract: "Do what lines on standard input name, and answer with the time it took.",
    discussion: """
      For make bench, which has other programs do the same work in between. Lines: image; prefill; \
      decode SEQUENCES STEPS; answer TOKENS; bandwidth; rows FILE and logits FILE, which write \
      what was computed; with --train: step. Every line is answered by one of JSON with \
      "seconds". A party that waits uses no processor.
      """,
    shouldDisplay: false)

  @Option(help: ArgumentHelp("Model folder.", valueName: "folder"))
  var model: String

  @Option(help: ArgumentHelp("A JPEG or PNG.", valueName: "file"))
  var picture: String

  @Option(help: ArgumentHelp("Threads of every process (default: all cores).", valueName: "n"))
  var threads: Int?

  @Option(help: ArgumentHelp("Device, not of training.", valueName: "device"))
  var device = "cpu"

  @Option(name: .customLong("kv-cache"), help: "How the cache holds keys and values.")
  var kvCache = CacheType.float32

  @Flag(help: "Work in a mesh of processes; answer and step alone are known then.")
  var mesh = false

  @Flag(help: "Train.")
  var train = false

  @Option(help: ArgumentHelp("What training computes twice to save memory.", valueName: "which"))
  var recompute = Recompute.none

  func validate() throws {
    if let threads, threads < 1 { throw ValidationError("--threads must be at least 1") }
  }

  func run() async throws {
    let picture = try PictureFile.read(picture)
    let threads = threads ?? Machine.cores
    var shape = MeshShape(model: model)
    shape.threads = threads
    shape.device = device
    shape.cacheType = kvCache
    switch (mesh, train) {
    case (false, false):
      let work = try BenchWork(
        folder: model, device: device, threads: threads, cacheType: kvCache, picture: picture,
        turns: BenchQuestion.turns)
      try await serve { try work.answer(to: $0, threads: threads) }
    case (true, false):
      try await LocalMesh.run(shape) { gateway in
        let client = ChatClient(gateway)
        defer { client.close() }
        try await serve { try await client.answer(to: $0, picture: picture) }
      }
    case (false, true):
      try await serve(InProcessStages(model: model, threads: threads), picture)
    case (true, true):
      try await LocalMesh.run(shape) { _, addresses in
        let session = try StageSession(
          model: model, addresses: addresses,
          logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() })
        do {
          try await session.stages.ready(within: .seconds(60))
          try await serve(session.stages, picture)
        } catch {
          await session.close()
          throw error
        }
        await session.close()
      }
    }
  }

  private func serve(_ stages: any TrainingStages, _ picture: Attachment) async throws {
    let prompt = try PromptBuilder(modelFolder: model).build(
      turns: BenchQuestion.turns, files: [picture.tensor])
    let step = try await BenchStep(
      stages, folder: model, pixels: prompt.pictures[0].pixels, recompute: recompute)
    var number = 0
    try await serve { words in
      guard words == ["step"] else { throw UnknownWork(words) }
      let outcome = try await step.run(number)
      number += 1
      return [
        ("seconds", .number(outcome.seconds)), ("loss", .number(outcome.loss)),
        ("norm", .number(outcome.norm)),
      ]
    }
  }

  typealias Reply = [(String, JSONValue)]

  /// Answers line after line, until there are no more.
  private func serve(_ work: ([String]) async throws -> Reply) async throws {
    let input = LineEditor()
    Terminal.write(JSONValue.object([("ready", .boolean(true))]).compactText + "\n")
    while let line = try await input.read(prompt: "") {
      let words = line.split(separator: " ").map(String.init)
      if words.isEmpty { continue }
      if words == ["quit"] { return }
      let reply: Reply
      do {
        reply = try await work(words)
      } catch {
        reply = [("error", .string("\(error)"))]
      }
      Terminal.write(JSONValue.object(reply).compactText + "\n")
    }
  }
}

extension Recompute: ExpressibleByArgument {}

/// A line that names nothing that this party does.
private struct UnknownWork: Error, CustomStringConvertible {
  let words: [String]

  init(_ words: [String]) { self.words = words }

  var description: String {
    "this party does not know the work \"\(words.joined(separator: " "))\""
  }
}

extension BenchWork {
  fileprivate func answer(to words: [String], threads: Int) throws -> BenchParty.Reply {
    let clock = ContinuousClock()
    let began = clock.now
    switch (words[0], words.dropFirst().compactMap { Int($0) }) {
    case ("image", _): _ = try image()
    case ("prefill", _): try prefill()
    case ("decode", let numbers)
    where numbers.count == 2 && 1...BenchWork.greatestBatch ~= numbers[0]
      && 1...BenchWork.room ~= numbers[1]:
      return [("seconds", .number(try decode(numbers[0], steps: numbers[1])))]
    case ("answer", let numbers) where numbers.count == 1 && 2...BenchWork.room ~= numbers[0]:
      return try answer(tokens: numbers[0]).reply
    case ("bandwidth", _):
      return [("bytes_per_second", .number(BenchMemory.readBandwidth(threads: threads)))]
    case ("rows", _) where words.count == 2:
      try SafetensorsWriter.write([("rows", try image())], to: words[1])
    case ("logits", _) where words.count == 2:
      try SafetensorsWriter.write([("logits", try logits())], to: words[1])
    default: throw UnknownWork(words)
    }
    return [("seconds", .number((clock.now - began) / .seconds(1)))]
  }
}

extension BenchWork.Answer {
  fileprivate var reply: BenchParty.Reply {
    [
      ("seconds", .number(image + prefill + decode)), ("image", .number(image)),
      ("prefill", .number(prefill)), ("decode", .number(decode)),
    ]
  }
}

extension ChatClient {
  fileprivate func answer(
    to words: [String], picture: Attachment
  ) async throws -> BenchParty.Reply {
    guard words.count == 2, words[0] == "answer", let tokens = Int(words[1]), tokens > 1 else {
      throw UnknownWork(words)
    }
    return try await answer(tokens: tokens, picture: picture).reply
  }

  /// Has a mesh give an answer of so many tokens.
  func answer(tokens: Int, picture: Attachment) async throws -> BenchWork.Answer {
    var settings = ChatSettings()
    settings.maxTokens = tokens
    settings.ignoresEnd = true
    let timings = try await ask(
      BenchQuestion.turns, pictures: [picture], settings: settings
    ).timings
    return BenchWork.Answer(
      image: timings.image / 1000, prefill: timings.prefill / 1000,
      decode: timings.decode / 1000)
  }
}
