/// What can go wrong between text and token ids.
public enum TextError: Error, Equatable, Sendable {
  /// A file of the checkpoint cannot be read.
  case unreadableFile(path: String, reason: String)
  /// A file is larger than any honest one.
  case oversizedFile(path: String, bytes: Int, limit: Int)
  /// tokenizer.model is damaged, or of a kind that is not supported.
  case invalidModel(path: String, reason: String)
  /// A JSON file does not say what it should.
  case invalidConfiguration(path: String, reason: String)
  /// The checkpoint wants another tokenizer.
  case unsupportedTokenizer(path: String, tokenizerClass: String)
  /// The text is longer than ``Tokenizer/maximumTextBytes``.
  case oversizedText(bytes: Int, limit: Int)
  /// SentencePiece could not encode a text.
  case encodingFailed(reason: String)
  case unknownTemplate(name: String, known: [String])
  /// A conversation that a template cannot render.
  case invalidTurn(index: Int, reason: String)
  /// A text brings a token along that only the program may write. `turn` is nil for the system
  /// message.
  case reservedToken(token: String, turn: Int?)
  /// As many `<image>` placeholders are needed as there are images.
  case imageCountMismatch(placeholders: Int, images: Int)
  /// An image must have one token at least.
  case invalidImageTokenCount(image: Int, tokens: Int)
  /// The encoded prompt holds more or fewer image tokens than there are image rows.
  case imageTokenMismatch(expected: Int, found: Int)
}

extension TextError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unreadableFile(let path, let reason):
      return "\(path) cannot be read: \(reason). A checkpoint folder holds it beside config.json."
    case .oversizedFile(let path, let bytes, let limit):
      return "\(path) has \(bytes) bytes; at most \(limit) are read. Is it the right file?"
    case .invalidModel(let path, let reason):
      return "\(path) is not a usable SentencePiece model: \(reason). Fetch the file again."
    case .invalidConfiguration(let path, let reason):
      return "\(path) cannot be used: \(reason). Correct it, or fetch it again."
    case .unsupportedTokenizer(let path, let tokenizerClass):
      return "\(path) names the tokenizer class \(tokenizerClass); LlamaTokenizer is supported."
    case .oversizedText(let bytes, let limit):
      return "The text has \(bytes) bytes; at most \(limit) can be encoded. Shorten it."
    case .encodingFailed(let reason):
      return "SentencePiece could not encode the text: \(reason). Is tokenizer.model damaged?"
    case .unknownTemplate(let name, let known):
      return "There is no chat template “\(name)”. Known: \(known.joined(separator: ", "))."
    case .invalidTurn(let index, let reason):
      return "Turn \(index + 1) of the conversation cannot be rendered: \(reason)."
    case .reservedToken(let token, let turn):
      let place = turn.map { "Turn \($0 + 1)" } ?? "The system message"
      return "\(place) contains \(token), which only the server may write. "
        + "Take it out, or put a space inside it."
    case .imageCountMismatch(let placeholders, let images):
      return "The conversation has \(placeholders) <image> placeholders in its user turns, "
        + "but \(images) images came with it. Give one image for each placeholder."
    case .invalidImageTokenCount(let image, let tokens):
      return "Image \(image) shall be shown to the model as \(tokens) tokens; 1 at least."
    case .imageTokenMismatch(let expected, let found):
      return "The prompt encodes to \(found) image tokens, but the images have \(expected) rows. "
        + "Does the tokenizer know <IMG_CONTEXT>?"
    }
  }
}
