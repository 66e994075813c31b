import InternVL
import Kernels
import Messages
import Sequencer
import Support
import Tensors
import Testing
import Transport

/// Swift Testing has a type of that name, too.
typealias Attachment = Transport.Attachment

/// A small checkpoint with two pictures beside it.
struct GoldenModel: Sendable, CustomTestStringConvertible {
  let name: String
  let visionLayers: Int
  let languageLayers: Int
  /// Where the model lies if it is not one of the fixtures, or one of them quantised.
  var otherFolder: String?

  static let tiny = GoldenModel(name: "v12-tiny", visionLayers: 3, languageLayers: 3)
  static let sharded = GoldenModel(name: "v12-sharded-bf16", visionLayers: 4, languageLayers: 2)

  var testDescription: String { name }
  var folder: String { otherFolder ?? Fixtures.path("golden/\(name)/checkpoint") }

  /// Where `image.jpg` or `second.jpg` lies.
  func path(_ picture: String) -> String { Fixtures.path("golden/\(name)/\(picture)") }

  func pictures(_ names: String...) throws -> [Attachment] {
    try names.map { try PictureFile.read(path($0)) }
  }

  /// What the model in one process makes of a prompt.
  func compute(
    _ turns: [ChatTurn], _ pictures: [Attachment], tokens count: Int, roundsInputs: Bool = false
  ) throws -> Computed {
    let builder = try PromptBuilder(modelFolder: folder)
    let prompt = try builder.build(turns: turns, files: pictures.map(\.tensor))
    let model = try InternVLModel(
      folder: folder, device: CPUDevice(threads: 1, roundsInputs: roundsInputs),
      cacheTokens: prompt.tokens.count + count)
    var computed = Computed(promptTokens: prompt.tokens)
    var rows: [Float] = []
    for picture in prompt.pictures {
      computed.pixels += picture.pixels.bits
      for tile in 0..<picture.pixels.shape[0] {
        let vision = try model.visionOutput(picture.pixels[tile])
        let projected = try model.projectorOutput(vision)
        computed.vision += vision.bits
        computed.projector += projected.bits
        rows += projected.floats
      }
    }
    let width = model.projector.width
    let images = rows.isEmpty ? nil : Tensor(rows, [rows.count / width, width])
    let logits = try model.prefill(
      0, ids: prompt.tokens, images: images,
      placeholder: images == nil ? nil : builder.imageTokenID)
    computed.logits = logits.bits
    var token = InternVLModel.greatest(logits[prompt.tokens.count - 1])
    while true {
      computed.tokens.append(token)
      if computed.tokens.count == count { return computed }
      token = InternVLModel.greatest(try model.decode([(0, token)])[0])
    }
  }

  /// Everything on the way from a prompt to its greedy answer, as bits.
  struct Computed: Equatable {
    var promptTokens: [Int32]
    var pixels: [UInt32] = []
    var vision: [UInt32] = []
    var projector: [UInt32] = []
    /// Of all the prompt's positions.
    var logits: [UInt32] = []
    var tokens: [Int32] = []
  }
}

extension ChatClient {
  /// The same as a gateway tells it.
  func compute(_ turns: [ChatTurn], _ pictures: [Attachment], tokens count: Int) async throws
    -> GoldenModel.Computed
  {
    let settings = ChatSettings.tokens(count)
    let (result, events) = try await probe(turns, pictures: pictures, settings: settings)
    func bits(_ name: String) -> [UInt32] {
      events.flatMap(\.tensors).filter { $0.name == name }.flatMap(\.tensor.bits)
    }
    return GoldenModel.Computed(
      promptTokens: events.flatMap(\.message.promptTokens), pixels: bits("pixels"),
      vision: bits("vision"), projector: bits("projector"), logits: bits("logits"),
      tokens: result.tokenIDs)
  }
}

extension ChatSettings {
  /// Exactly so many tokens.
  static func tokens(_ count: Int) -> ChatSettings {
    var settings = ChatSettings()
    settings.maxTokens = count
    settings.ignoresEnd = true
    return settings
  }
}

extension ChatTurn {
  static func user(_ text: String) -> ChatTurn { ChatTurn(role: "user", text: text) }
  static func assistant(_ text: String) -> ChatTurn { ChatTurn(role: "assistant", text: text) }
  static func system(_ text: String) -> ChatTurn { ChatTurn(role: "system", text: text) }
}
