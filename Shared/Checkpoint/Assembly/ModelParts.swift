/// What a model is put together from, as the recipe of InternVL-Chat-V1.2 begins: a vision encoder
/// of its own, a projector's file, a language model and a tokenizer.
public struct ModelParts: Sendable {
  /// A folder with the config.json and the weights of an `InternVisionModel`.
  public var vision: String
  /// A `.pth` or `.safetensors` file of the projector; nil: a new one.
  public var projector: String?
  /// A folder with the config.json and the weights of a `LlamaForCausalLM`.
  public var language: String
  /// A folder with tokenizer.model and the files beside it.
  public var tokenizer: String

  public init(vision: String, projector: String?, language: String, tokenizer: String) {
    self.vision = vision
    self.projector = projector
    self.language = language
    self.tokenizer = tokenizer
  }
}

/// What a tokenizer becomes by the tokens that mark pictures and places in them.
public struct TokenizerGrowth: Sendable, Equatable {
  /// The tokens, in the order in which the reference adds them.
  public static let tokens = [
    "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>",
  ]

  /// Those that get new ids, in order; the first id is ``oldSize``.
  public var new: [String]
  /// Ids of those that are ordinary pieces and become special, such as `<img>` in Yi's model.
  public var known: [String: Int]
  /// Ids before: one more than the largest.
  public var oldSize: Int

  public var size: Int { oldSize + new.count }

  /// - Parameters:
  ///   - size: ids of the tokenizer: one more than the largest.
  ///   - id: the id of a token that it has; nil for others.
  public init(size: Int, id: (String) -> Int?) {
    oldSize = size
    new = []
    known = [:]
    for token in TokenizerGrowth.tokens {
      if let id = id(token) { known[token] = id } else { new.append(token) }
    }
  }

  /// All nine with their ids, by id.
  var ids: [(token: String, id: Int)] {
    let added = new.enumerated().map { (token: $0.element, id: oldSize + $0.offset) }
    return (known.map { (token: $0.key, id: $0.value) } + added).sorted { $0.id < $1.id }
  }
}
