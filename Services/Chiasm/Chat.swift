import ArgumentParser
import Kernels
import Mesh
import Messages
import Sequencer
import Transport

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// `chiasm chat`: one answer, or a conversation.
struct Chat: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Ask about pictures: once with a prompt, else in a conversation.",
    discussion: """
      Uses the running mesh; where there is none, starts one for the call with --model.
      """)

  @Argument(help: "What to say. Without it a conversation begins.")
  var prompt: String?

  @Option(help: ArgumentHelp("A JPEG or PNG; may be given again.", valueName: "file"))
  var image: [String] = []

  @Option(
    help: ArgumentHelp(
      "Start a mesh of this model for the call (default without a running mesh: $CHIASM_MODEL).",
      valueName: "folder"))
  var model: String?

  @Option(
    help: ArgumentHelp("Gateway to ask instead of the running mesh's.", valueName: "address"))
  var gateway: String?

  @Option(help: "What the system says to the model first.")
  var system: String?

  @Flag(help: "Print one JSON object instead of streaming text.")
  var json = false

  @Option(help: ArgumentHelp("Tokens of an answer at most.", valueName: "n"))
  var maxTokens: Int?

  @Option(help: "0 is greedy.")
  var temperature: Float = 0

  @Option(help: ArgumentHelp("Sample among the n likeliest tokens; 0 is off.", valueName: "n"))
  var topK = 0

  @Option(help: ArgumentHelp("Sample among the likeliest tokens that make up p.", valueName: "p"))
  var topP: Float = 1

  @Option(
    help: ArgumentHelp("Sample among tokens of at least p times the best one's.", valueName: "p"))
  var minP: Float = 0

  @Option(help: "Divides the logits of generated tokens; 1 is off.")
  var repetitionPenalty: Float = 1

  @Option(help: "The same seed gives the same answer.")
  var seed: UInt64?

  @Option(help: ArgumentHelp("Text that ends the answer; may be given again.", valueName: "text"))
  var stop: [String] = []

  @Option(
    help: ArgumentHelp("With --json: log-probabilities of the n best tokens.", valueName: "n"))
  var logprobs: Int?

  @Option(help: ArgumentHelp("Threads of every process of a mesh of its own.", valueName: "n"))
  var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Device of a mesh of its own: cpu, cpu:bf16 (rounds inputs of products) or cuda:N.",
      valueName: "device"))
  var device: String?

  @Option(
    help: "How the cache of a mesh of its own holds keys and values: f32, bf16 or q8.")
  var kvCache: CacheType?

  @OptionGroup var location: MeshLocation

  func validate() throws {
    if json && prompt == nil { throw ValidationError("--json needs a prompt") }
    if logprobs != nil && !json { throw ValidationError("--logprobs needs --json") }
    if gateway != nil && model != nil {
      throw ValidationError("give one of --gateway and --model")
    }
    if let maxTokens, maxTokens < 1 { throw ValidationError("--max-tokens must be at least 1") }
    if topK < 0 || (logprobs ?? 0) < 0 {
      throw ValidationError("--top-k and --logprobs cannot be negative")
    }
  }

  func run() async throws {
    // Before a mesh is started for nothing.
    let pictures = try image.map { try PictureFile.read($0) }
    if let gateway {
      try await talk(Endpoint(parsing: gateway), pictures)
    } else if model == nil, (try? MeshState.running(in: location.runDirectory)) != nil {
      try await talk(
        Endpoint(parsing: Layout.gatewayAddress(in: location.runDirectory)), pictures)
    } else {
      guard let folder = model ?? Environment.current["CHIASM_MODEL"] else {
        throw ValidationError(
          "no mesh runs in \(location.runDirectory.path); start one with `chiasm up`, or give "
            + "--model a model folder")
      }
      var shape = MeshShape(model: folder)
      shape.threads = threads
      if let device { shape.device = device }
      shape.cacheType = kvCache
      try await LocalMesh.run(shape) { try await talk($0, pictures) }
    }
  }

  private func talk(_ endpoint: Endpoint, _ pictures: [Attachment]) async throws {
    let client = ChatClient(endpoint)
    defer { client.close() }
    var settings = ChatSettings()
    settings.sampling = SamplingParameters(
      temperature: temperature, topK: topK, topP: topP, minP: minP,
      repetitionPenalty: repetitionPenalty, seed: seed, topLogprobs: logprobs)
    settings.maxTokens = maxTokens
    settings.stop = stop
    let opening = system.map { [ChatTurn(role: "system", text: $0)] } ?? []
    guard let prompt else {
      var conversation = Conversation(
        chat: client, settings: settings, opening: opening, pictures: pictures)
      return try await conversation.run()
    }
    let turns = opening + [ChatTurn(role: "user", text: prompt)]
    if json {
      let result = try await client.ask(turns, pictures: pictures, settings: settings)
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      Terminal.write(String(decoding: try encoder.encode(result), as: UTF8.self) + "\n")
    } else {
      _ = try await client.ask(turns, pictures: pictures, settings: settings) {
        Terminal.writeAnswer($0)
      }
      Terminal.write("\n")
    }
  }
}
