import ArgumentParser
import Checkpoint
import Sequencer
import Transport

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// `chiasm bench`: what the wire costs, how fast models are, what the mesh costs beside one
/// process, and what a pipeline gains in training.
struct Bench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the wire, a model in one process and in a mesh, and training.",
    discussion: """
      Both sides of a ratio do the same work in the same run, turn by turn. Medians, with the \
      least and the greatest ratio of a round.
      """)

  enum Part: String, ExpressibleByArgument, CaseIterable {
    case wire, speed, mesh, training
  }

  @Option(
    help: ArgumentHelp(
      "Model folder; may be given again, for its quantised forms. Without one only the wire is "
        + "measured; mesh takes the first, training no more than its tokenizer.",
      valueName: "folder"))
  var model: [String] = []

  @Option(help: ArgumentHelp("Measures this part alone; may be given again.", valueName: "part"))
  var part: [Part] = []

  @Option(help: ArgumentHelp("Picture to encode.", valueName: "file"))
  var image = "compose/pictures/cat.jpg"

  @Option(help: ArgumentHelp("Rounds after the first, which does not count.", valueName: "n"))
  var rounds = 5

  @Option(help: ArgumentHelp("Tokens to decode in each round.", valueName: "n"))
  var decode = 32

  @Option(help: ArgumentHelp("Threads of every process (default: all cores).", valueName: "n"))
  var threads: Int?

  @Option(help: ArgumentHelp("Where to draw a pipelined step of training.", valueName: "file"))
  var picture: String?

  @Option(help: ArgumentHelp("Where to write every round's figures.", valueName: "file"))
  var json: String?

  func validate() throws {
    guard rounds > 0, decode > 1 else {
      throw ValidationError("--rounds must be at least 1 and --decode at least 2")
    }
    if model.isEmpty, let part = part.first(where: { $0 != .wire }) {
      throw ValidationError("--part \(part.rawValue) needs --model")
    }
  }

  func run() async throws {
    let parts = part.isEmpty ? Part.allCases : part
    var results: [(String, JSONValue)] = []
    if parts.contains(.wire) { results.append(("wire", try await wire())) }
    if let first = model.first {
      if parts.contains(.speed) { results.append(("speed", .array(try speed(model)))) }
      if parts.contains(.mesh) { results.append(("mesh", try await compare(first))) }
      if parts.contains(.training) {
        let training = BenchTraining(tokenizer: first, rounds: rounds, picture: picture)
        results.append(("training", try await training.run()))
      }
    }
    if let json {
      try Data((JSONValue.object(results).text).utf8).write(to: URL(filePath: json))
    }
  }

  // MARK: The wire

  private func wire() async throws -> JSONValue {
    let folder = try TemporaryFolder.make(prefix: "chiasm-wire")
    defer { TemporaryFolder.remove(folder) }
    let result = try await WireBenchmark.run(directory: folder)
    func microseconds(_ duration: Duration) -> Double { duration / .microseconds(1) }
    let inPlace = microseconds(result.arenaHandover)
    let inside = microseconds(result.insideMessage)
    Terminal.write(
      """
      the wire, over a Unix socket
        round trip of a small call: p50 \(Figure(microseconds(result.roundTrip))) µs; answered on \
      the connection's thread \(Figure(microseconds(result.immediateRoundTrip))) µs; the same bytes \
      between two threads and a bare socket pair \(Figure(microseconds(result.bareRoundTrip))) µs
        29 MB from stage to stage, CPU of both ends: in place \(Figure(inPlace)) µs, copied into \
      the arena \(Figure(microseconds(result.copiedHandover))) µs, in the stream \
      \(Figure(microseconds(result.streamHandover))) µs
        packed and unpacked inside a message: \(Figure(inside)) µs, \(Figure(inside / inPlace)) \
      times the hand-over in place

      """)
    return .object([
      ("round_trip_us", .number(microseconds(result.roundTrip))),
      ("immediate_round_trip_us", .number(microseconds(result.immediateRoundTrip))),
      ("bare_round_trip_us", .number(microseconds(result.bareRoundTrip))),
      ("in_place_us", .number(inPlace)),
      ("copied_us", .number(microseconds(result.copiedHandover))),
      ("stream_us", .number(microseconds(result.streamHandover))),
      ("inside_message_us", .number(inside)),
    ])
  }

  // MARK: Models

  /// What one process makes of each model, model after model in every round.
  private func speed(_ folders: [String]) throws -> [JSONValue] {
    let picture = try PictureFile.read(image)
    let threads = threads ?? Machine.cores
    let works = try folders.map {
      try BenchWork(folder: $0, threads: threads, picture: picture, turns: BenchQuestion.turns)
    }
    let batches = [1, 4, BenchWork.greatestBatch]
    let steps = min(decode, BenchWork.room)
    var bandwidth: [Double] = []
    var seconds = folders.map { _ in [String: [Double]]() }
    for round in 0...rounds {
      Terminal.say("speed, round \(round) of \(rounds)")
      let read = BenchMemory.readBandwidth(threads: threads)
      if round > 0 { bandwidth.append(read) }
      for (index, work) in works.enumerated() {
        func note(_ name: String, _ value: Double) {
          // The first round maps weights and fills caches.
          if round > 0 { seconds[index][name, default: []].append(value) }
        }
        note("image", try BenchWork.seconds { _ = try work.image() })
        note("prefill", try BenchWork.seconds { try work.prefill() })
        for count in batches {
          note("decode \(count)", try work.decode(count, steps: steps))
        }
      }
    }
    let peak = Spread(bandwidth).median
    Terminal.write(
      "\none process, \(threads) threads; memory is read at \(Figure(peak / 1e9)) GB/s\n")
    var results: [JSONValue] = []
    for (index, folder) in folders.enumerated() {
      func spread(_ name: String) -> Spread { Spread(seconds[index][name] ?? []) }
      func rate(_ name: String, _ count: Int) -> String {
        Spread((seconds[index][name] ?? []).map { Double(count) / $0 }).description
      }
      let bytes = try works[index].bytesOfStep()
      let share = Double(bytes) / spread("decode 1").median / peak
      Terminal.write(
        """
        \(folder)
          image encode \(spread("image")) s
          prefill of \(BenchWork.promptTokens) tokens \(rate("prefill", BenchWork.promptTokens)) \
        tok/s
        \(batches.map { count in
          "  decode, \(count) at once: \(rate("decode \(count)", count)) tok/s"
            + (count == 1 ? ", \(Percent(share)) of what memory can give" : "")
        }.joined(separator: "\n"))

        """)
      results.append(
        .object(
          [("model", .string(folder)), ("bytes_of_step", .integer(bytes))]
            + seconds[index].sorted { $0.key < $1.key }.map {
              ($0.key, .array($0.value.map { .number($0) }))
            }))
    }
    return results
  }

  /// A mesh beside one process, by one answer to a picture and some words.
  private func compare(_ folder: String) async throws -> JSONValue {
    let picture = try PictureFile.read(image)
    let threads = threads ?? Machine.cores
    let whole = try BenchWork(
      folder: folder, threads: threads, picture: picture, turns: BenchQuestion.turns)
    Terminal.write(
      "\n\(folder), \(threads) threads, a prompt of \(whole.answerTokens) tokens with "
        + "\(whole.answerImageTokens) of a picture, \(decode) tokens decoded\n")
    var shape = MeshShape(model: folder)
    shape.threads = threads
    let (rounds, decode) = (rounds, decode)
    let (here, mesh) = try await LocalMesh.run(shape) { gateway in
      let client = ChatClient(gateway)
      defer { client.close() }
      var here: [BenchWork.Answer] = []
      var mesh: [BenchWork.Answer] = []
      for round in 0...rounds {
        Terminal.say("mesh, round \(round) of \(rounds)")
        let alone = try whole.answer(tokens: decode)
        let through = try await client.answer(tokens: decode, picture: picture)
        // The first round maps the weights.
        if round == 0 { continue }
        here.append(alone)
        mesh.append(through)
      }
      return (here, mesh)
    }
    print("image encode", here, mesh, \.image, unit: "s") { $0 }
    let tokens = Double(whole.answerTokens)
    print("prefill", here, mesh, \.prefill, unit: "tok/s") { tokens / $0 }
    let decoded = Double(decode - 1)
    print("decode", here, mesh, \.decode, unit: "tok/s") { decoded / $0 }
    return .object([
      ("model", .string(folder)), ("process", .array(here.map(\.json))),
      ("mesh", .array(mesh.map(\.json))),
    ])
  }

  private func print(
    _ name: String, _ here: [BenchWork.Answer], _ mesh: [BenchWork.Answer],
    _ part: KeyPath<BenchWork.Answer, Double>, unit: String, _ figure: (Double) -> Double
  ) {
    let alone = Spread(here.map { $0[keyPath: part] }).median
    let through = Spread(mesh.map { $0[keyPath: part] }).median
    let ratio = Spread(zip(here, mesh).map { $1[keyPath: part] / $0[keyPath: part] })
    Terminal.write(
      "  \(name): one process \(Figure(figure(alone))) \(unit), mesh \(Figure(figure(through))) "
        + "\(unit); time of the mesh to one process \(ratio)\n")
  }
}

/// A measured number with three digits.
struct Figure: CustomStringConvertible {
  let value: Double

  init(_ value: Double) { self.value = value }

  var description: String {
    guard value.isFinite else { return "–" }
    let places = abs(value) >= 100 ? 0 : abs(value) >= 10 ? 1 : 2
    let scale = [1.0, 10.0, 100.0][places]
    let rounded = (value * scale).rounded() / scale
    return places == 0 ? "\(Int(rounded))" : "\(rounded)"
  }
}
