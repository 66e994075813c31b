import ArgumentParser
import Checkpoint
import Tensors
import Text

/// `chiasm assemble`: a model folder from a vision encoder, a projector and a language model.
struct Assemble: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Put a model together from its parts, as training begins.",
    discussion: """
      Weights may be safetensors or PyTorch's .bin and .pth, of which nothing is run. Tokens that \
      mark pictures are added to the tokenizer where it lacks them, and rows to the vocabulary: \
      new ones of the embedding are random, of the head the mean of the others.
      """)

  @Option(help: ArgumentHelp("Folder of an InternVisionModel.", valueName: "folder"))
  var vision: String

  @Option(
    help: ArgumentHelp(
      "The projector's weights, .pth or .safetensors; without them it starts new.",
      valueName: "file"))
  var projector: String?

  @Option(help: ArgumentHelp("Folder of a LlamaForCausalLM.", valueName: "folder"))
  var language: String

  @Option(help: ArgumentHelp("Folder of the tokenizer.", valueName: "folder"))
  var tokenizer: String

  @Option(name: .customLong("out"), help: ArgumentHelp("Folder to write.", valueName: "folder"))
  var output: String

  @Option(help: "Pixels on a side of a tile; as the vision encoder has it if not given.")
  var imageSize: Int?

  @Option(help: "Which of the encoder's hidden states the projector takes.")
  var selectLayer = -1

  @Option(help: "Factor by which a side of the grid of patches shrinks.")
  var downsampleRatio: Float = 0.5

  @Option(help: ArgumentHelp("Order of the image tokens: v1 or v2.", valueName: "version"))
  var psVersion: PixelShuffleVersion = .v1

  @Option(help: "Name of the chat template.")
  var template = "Hermes-2"

  @Option(help: "System message, where it is not the template's.")
  var systemMessage: String?

  @Option(help: ArgumentHelp("float32 or bfloat16.", valueName: "type"))
  var type: WeightType = .bfloat16

  @Option(help: "The same seed gives the same new rows.")
  var seed: UInt64 = 42

  enum WeightType: String, ExpressibleByArgument {
    case float32, bfloat16
  }

  enum PixelShuffleVersion: String, ExpressibleByArgument {
    case v1, v2
  }

  func validate() throws {
    do { _ = try ChatTemplate(named: template) } catch { throw ValidationError("\(error)") }
  }

  func run() throws {
    let chat = try ChatTemplate(named: template)
    let words = try Tokenizer(folder: tokenizer)
    var assembly = ModelAssembly(
      parts: ModelParts(
        vision: vision, projector: projector, language: language, tokenizer: tokenizer),
      growth: TokenizerGrowth(size: words.vocabularySize, id: words.id))
    assembly.imageSize = imageSize
    assembly.selectLayer = selectLayer
    assembly.downsampleRatio = downsampleRatio
    assembly.pixelShuffle = psVersion == .v1 ? .v1 : .v2
    assembly.template = chat.rawValue
    assembly.endTokens = chat.stopIDs(words) + (words.eosID.map { [$0] } ?? [])
    assembly.systemMessage = systemMessage
    assembly.scalarType = type == .float32 ? .float32 : .bfloat16
    assembly.seed = seed
    let model = try assembly.write(to: output)
    Terminal.say(
      """
      wrote \(output): \(model.vision.layerCount) vision layers, \
      \(model.language.layerCount) language layers, \(model.language.vocabularySize) tokens \
      (\(assembly.growth.new.count) new)\(projector == nil ? ", a new projector" : "")
      """)
  }
}
