import ArgumentParser
import InternVL
import Kernels
import Messages
import Sequencer
import Tensors
import Transport

/// `chiasm bench`: what the wire costs, what the mesh costs beside one process, and what a
/// pipeline gains in training.
struct Bench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure the wire, a model in one process and in a mesh, and training.",
    discussion: """
      Both sides of a ratio do the same work in the same run, turn by turn. Medians, with the \
      least and the greatest ratio of a round.
      """)

  enum Part: String, ExpressibleByArgument, CaseIterable {
    case wire, model, training
  }

  @Option(
    help: ArgumentHelp(
      "Model folder; without one only the wire is measured. Training takes no more than the "
        + "tokenizer from it.", valueName: "folder"))
  var model: String?

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

  func validate() throws {
    guard rounds > 0, decode > 1 else {
      throw ValidationError("--rounds must be at least 1 and --decode at least 2")
    }
    if model == nil, let part = part.first(where: { $0 != .wire }) {
      throw ValidationError("--part \(part.rawValue) needs --model")
    }
  }

  func run() async throws {
    let parts = part.isEmpty ? Part.allCases : part
    if parts.contains(.wire) { try await wire() }
    guard let model else { return }
    if parts.contains(.model) { try await compare(model) }
    if parts.contains(.training) {
      try await BenchTraining(tokenizer: model, rounds: rounds, picture: picture).run()
    }
  }

  // MARK: The wire

  private func wire() async throws {
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
  }

  // MARK: The model

  /// Milliseconds of one round.
  private struct Round {
    var image = 0.0
    var prefill = 0.0
    var decode = 0.0
  }

  private func compare(_ folder: String) async throws {
    let picture = try PictureFile.read(image)
    let words = String(repeating: "a picture of something ", count: 8)
    let turns = [ChatTurn(role: "user", text: words)]
    let builder = try PromptBuilder(modelFolder: folder)
    let prompt = try builder.build(turns: turns, files: [picture.tensor])
    let threads = threads ?? Machine.cores
    let whole = try InternVLModel(
      folder: folder, device: Devices.make("cpu", threads: threads),
      cacheTokens: prompt.tokens.count + decode)
    Terminal.write(
      "\n\(folder), \(threads) threads, a prompt of \(prompt.tokens.count) tokens with "
        + "\(prompt.imageTokenCount) of a picture, \(decode) tokens decoded\n")

    var here: [Round] = []
    var mesh: [Round] = []
    var shape = MeshShape(model: folder)
    shape.threads = threads
    let rounds = rounds
    (here, mesh) = try await LocalMesh.run(shape) { gateway in
      let client = ChatClient(gateway)
      defer { client.close() }
      var settings = ChatSettings()
      settings.maxTokens = decode
      settings.ignoresEnd = true
      var here: [Round] = []
      var mesh: [Round] = []
      for round in 0...rounds {
        Terminal.say("round \(round) of \(rounds)")
        let alone = try measure(whole, builder, prompt)
        let answer = try await client.ask(turns, pictures: [picture], settings: settings)
        // The first round maps the weights.
        if round == 0 { continue }
        here.append(alone)
        mesh.append(
          Round(
            image: answer.timings.image, prefill: answer.timings.prefill,
            decode: answer.timings.decode))
      }
      return (here, mesh)
    }
    print("image encode", here, mesh, \.image, unit: "s") { $0 / 1000 }
    let tokens = Double(prompt.tokens.count)
    print("prefill", here, mesh, \.prefill, unit: "tok/s") { tokens / ($0 / 1000) }
    let decoded = Double(decode - 1)
    print("decode", here, mesh, \.decode, unit: "tok/s") { decoded / ($0 / 1000) }
  }

  private func print(
    _ name: String, _ here: [Round], _ mesh: [Round], _ part: KeyPath<Round, Double>,
    unit: String, _ figure: (Double) -> Double
  ) {
    let ratios = zip(here, mesh).map { $1[keyPath: part] / $0[keyPath: part] }.sorted()
    let alone = here.map { $0[keyPath: part] }.sorted()[here.count / 2]
    let through = mesh.map { $0[keyPath: part] }.sorted()[mesh.count / 2]
    Terminal.write(
      "  \(name): one process \(Figure(figure(alone))) \(unit), mesh \(Figure(figure(through))) "
        + "\(unit); time of the mesh to one process \(Figure(ratios[ratios.count / 2])) "
        + "(\(Figure(ratios[0]))–\(Figure(ratios[ratios.count - 1])))\n")
  }

  private func measure(
    _ model: InternVLModel, _ builder: PromptBuilder, _ prompt: Prompt
  ) throws -> Round {
    let clock = ContinuousClock()
    func milliseconds(_ body: () throws -> Void) rethrows -> Double {
      try clock.measure(body) / .milliseconds(1)
    }
    var round = Round()
    var rows: [Tensor] = []
    round.image = try milliseconds {
      rows = try prompt.pictures.map { try model.encode($0.pixels) }
    }
    var token: Int32 = 0
    round.prefill = try milliseconds {
      token = try prefill(
        model, prompt, images: ProbeResult.joined(rows), placeholder: builder.imageTokenID)
    }
    round.decode = try milliseconds {
      for _ in 1..<decode {
        token = InternVLModel.greatest(try model.decode([(0, token)])[0])
      }
    }
    model.release(0)
    return round
  }

  /// The prompt in the gateway's chunks, with the logits of its last position alone, as a mesh
  /// computes it.
  private func prefill(
    _ model: InternVLModel, _ prompt: Prompt, images: Tensor?, placeholder: Int32
  ) throws -> Int32 {
    let ids = prompt.tokens
    let places = try ImageRows.places(
      of: images, in: ids, placeholder: images == nil ? -1 : placeholder)
    let width = model.language[0].width
    var hidden = Tensor(uninitialized: .float32, [0, width])
    let chunk = GatewayLimits().stepTokens
    for first in stride(from: 0, to: ids.count, by: chunk) {
      let part = first..<min(first + chunk, ids.count)
      hidden = Tensor(uninitialized: .float32, [part.count, width])
      try model.language[0].embed(
        ids: Array(ids[part]), imageRows: places.compactMap { $0.clipped(to: part) },
        into: hidden)
      let rows = SequenceRows(
        sequence: 0, position: first, rows: 0..<part.count, promptLength: ids.count)
      for stage in model.language { try stage.forward(hidden, steps: [rows]) }
    }
    let logits = Tensor(uninitialized: .float32, [1, model.language[0].vocabulary])
    try model.language[model.language.count - 1].logits(
      hidden.rows(hidden.shape[0] - 1..<hidden.shape[0]), into: logits)
    return InternVLModel.greatest(logits[0])
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
