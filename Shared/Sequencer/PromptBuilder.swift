import Checkpoint
import Images
import Messages
import Tensors
import Text
import Transport

/// Turns chat turns and picture files into token ids and pixels, as the model folder's
/// configuration says.
public struct PromptBuilder: Sendable {
  public let configuration: ModelConfiguration
  public let tokenizer: Tokenizer
  public let template: ChatTemplate
  public let normalization: Normalization
  /// Ids that end an answer: the model's own and the template's.
  public let endTokens: Set<Int32>
  private let imageToken: Int

  /// The id whose places in a prompt image rows take.
  public var imageTokenID: Int32 { Int32(imageToken) }

  /// - Throws: ``CheckpointError``, ``TextError`` of the folder's files.
  public init(modelFolder: String) throws {
    configuration = try ModelConfiguration.load(folder: modelFolder)
    tokenizer = try Tokenizer(folder: modelFolder)
    template = try ChatTemplate(named: configuration.templateName)
    let preprocessor = try PreprocessorConfiguration.load(folder: modelFolder)
    normalization = Normalization(
      mean: SIMD3(preprocessor.imageMean),
      standardDeviation: SIMD3(preprocessor.imageStandardDeviation))
    let generation = try GenerationConfiguration.load(
      folder: modelFolder, language: configuration.language)
    let ends = generation.endTokens + template.stopIDs(tokenizer)
    endTokens = Set(ends.map { Int32($0) })
    guard let imageToken = tokenizer.id(of: ImagePlaceholders.context) else {
      throw RPCError(
        .failedPrecondition,
        "the tokenizer in \(modelFolder) has no token \(ImagePlaceholders.context); "
          + "its added_tokens.json is not that of an InternVL model")
    }
    self.imageToken = imageToken
  }

  /// The longest prompt and answer together.
  public var contextLength: Int { configuration.language.maxPositions }

  /// - Parameter files: the pictures as JPEG or PNG, in the order of their placeholders.
  /// - Throws: INVALID_ARGUMENT for turns out of order or a prompt longer than the context;
  ///   ``ImagesError`` and ``TextError``.
  public func build(turns: [Messages.ChatTurn], files: [Tensor]) throws -> Prompt {
    let pictures = try files.map(picture)
    let (system, rest) = try separateSystem(turns)
    let rows = pictures.map { $0.pixels.shape[0] * configuration.imageTokenCount }
    let expanded = try ImagePlaceholders.expand(rest, rows: rows)
    let text = try template.render(
      systemMessage: system ?? configuration.systemMessage, turns: expanded)
    let ids = try tokenizer.encode(text)
    try ImagePlaceholders.check(ids, contextID: imageToken, rows: rows)
    guard ids.count < contextLength else {
      throw RPCError(
        .invalidArgument,
        "the prompt has \(ids.count) tokens, the model's context is \(contextLength); "
          + "shorten the conversation or send fewer pictures")
    }
    var row: Int32 = 0
    let imageRows = ids.map { id -> Int32 in
      guard id == imageToken else { return 0 }
      row += 1
      return row
    }
    let tokens = ids.map { Int32($0) }
    return Prompt(tokens: tokens, imageRows: imageRows, pictures: pictures)
  }

  private func picture(_ file: Tensor) throws -> Prompt.Picture {
    let image = try file.withElements(of: UInt8.self) {
      try RGBImage(decoding: UnsafeRawBufferPointer($0))
    }
    let size = configuration.imageSize
    let tiles: [RGBImage]
    if configuration.dynamicImageSize {
      tiles = image.tiles(
        Tiling(
          minTiles: configuration.minTiles, maxTiles: configuration.maxTiles, tileSize: size,
          thumbnail: configuration.useThumbnail))
    } else if configuration.padToSquare {
      tiles = [
        image.paddedToSquare(fill: normalization.padding).resized(width: size, height: size)
      ]
    } else {
      tiles = [image.resized(width: size, height: size)]
    }
    let pixels = Tensor(uninitialized: .float32, [tiles.count, 3, size, size])
    for (index, tile) in tiles.enumerated() {
      try tile.normalized(normalization, into: pixels[index])
    }
    return Prompt.Picture(
      pixels: pixels,
      decodedSHA256: image.pixels.withUnsafeBytes { Digest.sha256($0) },
      resizedSHA256: tiles.flatMap(\.pixels).withUnsafeBytes { Digest.sha256($0) })
  }

  /// The system message, if the first turn is one, and the turns that follow.
  private func separateSystem(
    _ turns: [Messages.ChatTurn]
  ) throws -> (String?, [Text.ChatTurn]) {
    var system: String?
    var rest: [Text.ChatTurn] = []
    for (index, turn) in turns.enumerated() {
      let text = turn.text
      if turn.role == "system" && index == 0 {
        system = text
        continue
      }
      let expected: Text.ChatTurn.Role = rest.count.isMultiple(of: 2) ? .user : .assistant
      guard turn.role == expected.rawValue else {
        throw RPCError(
          .invalidArgument,
          "turn \(index + 1) has the role \(turn.role), expected \(expected.rawValue): "
            + "after an optional system turn, user and assistant alternate")
      }
      rest.append(Text.ChatTurn(role: expected, text: text))
    }
    guard rest.last?.role == .user else {
      throw RPCError(.invalidArgument, "the last turn must be the user's")
    }
    return (system, rest)
  }
}
