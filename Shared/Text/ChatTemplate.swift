/// One part of a conversation.
public struct ChatTurn: Sendable, Equatable {
  public enum Role: String, Sendable, Codable {
    case system, user, assistant
  }

  public var role: Role
  public var text: String

  public init(role: Role, text: String) {
    self.role = role
    self.text = text
  }
}

/// How a conversation is written down for the model (`internvl/conversation.py` of
/// OpenGVLab/InternVL, `llava/conversation.py` of LLaVA).
public enum ChatTemplate: String, Sendable, CaseIterable {
  /// InternVL-Chat-V1.2 and V1.2-Plus.
  case hermes2 = "Hermes-2"
  /// InternVL-Chat-V1.1.
  case internvlZh = "internvl_zh"
  /// LLaVA-v1.6-34B.
  case chatMLDirect = "chatml_direct"

  /// - Throws: ``TextError/unknownTemplate(name:known:)``.
  public init(named name: String) throws {
    guard let template = Self(rawValue: name) else {
      throw TextError.unknownTemplate(name: name, known: Self.allCases.map(\.rawValue))
    }
    self = template
  }

  /// What the template says when nobody gives a system message.
  public var defaultSystemMessage: String {
    switch self {
    case .hermes2, .chatMLDirect: return "Answer the questions."
    case .internvlZh: return ""
    }
  }

  /// Tokens of which each ends an answer; a tokenizer need not have them all.
  public var stopTokens: [String] {
    switch self {
    case .hermes2, .chatMLDirect:
      return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"]
    case .internvlZh:
      return ["</s>"]
    }
  }

  /// The ids of ``stopTokens``, ascending.
  public func stopIDs(_ tokenizer: Tokenizer) -> [Int] {
    stopTokens.compactMap(tokenizer.id(of:)).sorted()
  }

  /// Texts that end an answer when the model spells them out instead of giving their token.
  public var stopStrings: [String] {
    switch self {
    case .hermes2, .chatMLDirect: return ["<|im_end|>", "<|endoftext|>"]
    case .internvlZh: return ["</s>"]
    }
  }

  /// Tokens that would let a text speak in another's name.
  public var reservedTokens: [String] {
    switch self {
    case .hermes2, .chatMLDirect: return stopTokens + ["<|startoftext|>"]
    case .internvlZh: return ["<s>", "</s>"]
    }
  }

  /// The prompt for a conversation.
  ///
  /// The BOS token is not part of it: the tokenizer adds it where the model wants one.
  /// - Parameters:
  ///   - systemMessage: nil for a first turn of the system's, or else ``defaultSystemMessage``.
  ///   - turns: user and assistant in any order; none of the system's but the first.
  ///   - opensAssistantTurn: ends the prompt where the model's answer begins. Off for training,
  ///     where the last answer is known.
  /// - Throws: ``TextError/invalidTurn(index:reason:)``, ``TextError/reservedToken(token:turn:)``.
  public func render(
    systemMessage: String? = nil, turns: [ChatTurn], opensAssistantTurn: Bool = true
  ) throws -> String {
    var system = systemMessage
    for (index, turn) in turns.enumerated() where turn.role == .system {
      guard index == 0 && systemMessage == nil else {
        throw TextError.invalidTurn(
          index: index,
          reason: "the system speaks once, first; put its words into the system message")
      }
      system = turn.text
    }
    // Turns may hold image tokens by now; the system message has no business with them.
    try ReservedToken.check(
      systemMessage ?? "", for: reservedTokens + ImagePlaceholders.reservedTokens, turn: nil)
    for (index, turn) in turns.enumerated() {
      try ReservedToken.check(turn.text, for: reservedTokens, turn: index)
    }

    let spoken = turns.filter { $0.role != .system }
    switch self {
    case .hermes2, .chatMLDirect:
      var prompt = "<|im_start|>system\n\(system ?? defaultSystemMessage)<|im_end|>"
      for turn in spoken {
        prompt += "<|im_start|>\(turn.role.rawValue)\n\(turn.text)<|im_end|>"
      }
      return opensAssistantTurn ? prompt + "<|im_start|>assistant\n" : prompt
    case .internvlZh:
      var prompt = (system ?? defaultSystemMessage) + " "
      for turn in spoken {
        prompt += turn.role == .user ? "<human>: \(turn.text) " : "<bot>: \(turn.text)</s>"
      }
      return opensAssistantTurn ? prompt + "<bot>:" : prompt
    }
  }
}
