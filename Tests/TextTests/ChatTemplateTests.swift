import Testing

@testable import Text

@Suite struct ChatTemplateTests {
  static let turns = [
    ChatTurn(role: .user, text: "Hi"), ChatTurn(role: .assistant, text: "Hello."),
    ChatTurn(role: .user, text: "你好\n"),
  ]

  @Test("ChatML puts nothing between turns", arguments: [ChatTemplate.hermes2, .chatMLDirect])
  func chatML(_ template: ChatTemplate) throws {
    #expect(
      try template.render(turns: Self.turns)
        == "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nHi<|im_end|>"
        + "<|im_start|>assistant\nHello.<|im_end|><|im_start|>user\n你好\n<|im_end|>"
        + "<|im_start|>assistant\n")
    #expect(
      try template.render(systemMessage: "", turns: [])
        == "<|im_start|>system\n<|im_end|><|im_start|>assistant\n")
  }

  @Test func internvlZhSeparatesBySpacesAndEndOfText() throws {
    #expect(
      try ChatTemplate.internvlZh.render(turns: Self.turns)
        == " <human>: Hi <bot>: Hello.</s><human>: 你好\n <bot>:")
    #expect(try ChatTemplate.internvlZh.render(turns: []) == " <bot>:")
  }

  @Test func closesTheLastAnswerForTraining() throws {
    let turns = Array(Self.turns.prefix(2))
    #expect(
      try ChatTemplate.hermes2.render(turns: turns, opensAssistantTurn: false)
        .hasSuffix("<|im_start|>assistant\nHello.<|im_end|>"))
    #expect(
      try ChatTemplate.internvlZh.render(turns: turns, opensAssistantTurn: false)
        == " <human>: Hi <bot>: Hello.</s>")
  }

  @Test func aFirstSystemTurnIsTheSystemMessage() throws {
    let turns = [ChatTurn(role: .system, text: "Be brief.")] + Self.turns
    for template in ChatTemplate.allCases {
      #expect(
        try template.render(turns: turns)
          == template.render(systemMessage: "Be brief.", turns: Self.turns))
    }
    #expect(throws: TextError.self) {
      try ChatTemplate.hermes2.render(systemMessage: "x", turns: turns)
    }
    #expect {
      try ChatTemplate.hermes2.render(turns: Self.turns + [ChatTurn(role: .system, text: "")])
    } throws: {
      guard case TextError.invalidTurn(3, _) = $0 else { return false }
      return true
    }
  }

  @Test(
    "refuses control tokens in a text", arguments: ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
  func reserved(_ token: String) {
    let text = "a\(token)\u{301}b"
    #expect(throws: TextError.reservedToken(token: token, turn: 0)) {
      try ChatTemplate.hermes2.render(turns: [ChatTurn(role: .user, text: text)])
    }
    #expect(throws: TextError.reservedToken(token: token, turn: nil)) {
      try ChatTemplate.hermes2.render(systemMessage: text, turns: [])
    }
  }

  @Test func refusesImageTokensInTheSystemMessage() {
    #expect(throws: TextError.reservedToken(token: "<IMG_CONTEXT>", turn: nil)) {
      try ChatTemplate.internvlZh.render(systemMessage: "<IMG_CONTEXT>", turns: [])
    }
  }

  @Test func isFoundByItsName() throws {
    for template in ChatTemplate.allCases {
      #expect(try ChatTemplate(named: template.rawValue) == template)
    }
    #expect(
      throws: TextError.unknownTemplate(
        name: "vicuna", known: ["Hermes-2", "internvl_zh", "chatml_direct"])
    ) { try ChatTemplate(named: "vicuna") }
  }
}

@Suite struct ImagePlaceholdersTests {
  func user(_ text: String) -> ChatTurn { ChatTurn(role: .user, text: text) }

  @Test func expandsLeftToRight() throws {
    let turns = [
      user("A <image> and <image>."), ChatTurn(role: .assistant, text: "<image>?"),
      user("<image>\nB"),
    ]
    #expect(
      try ImagePlaceholders.expand(turns, rows: [1, 2, 3]).map(\.text) == [
        "A <img><IMG_CONTEXT></img> and <img><IMG_CONTEXT><IMG_CONTEXT></img>.", "<image>?",
        "<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>\nB",
      ])
  }

  @Test func putsMissingPlaceholdersFirst() throws {
    let turns = [ChatTurn(role: .system, text: "S"), user("What?"), user("And?")]
    let one = ImagePlaceholders.tokens(rows: 1)
    let two = ImagePlaceholders.tokens(rows: 2)
    #expect(
      try ImagePlaceholders.expand(turns, rows: [2]).map(\.text) == ["S", "\(two)\nWhat?", "And?"])
    #expect(
      try ImagePlaceholders.expand([user("What?")], rows: [1, 2])[0].text
        == "\(one)\n\(two)\nWhat?")
    #expect(try ImagePlaceholders.expand(turns, rows: []) == turns)
    #expect(try ImagePlaceholders.expand([], rows: []).isEmpty)
  }

  @Test func refusesOtherNumbersOfImages() {
    #expect(throws: TextError.imageCountMismatch(placeholders: 2, images: 1)) {
      try ImagePlaceholders.expand([user("<image><image>")], rows: [1])
    }
    #expect(throws: TextError.imageCountMismatch(placeholders: 1, images: 2)) {
      try ImagePlaceholders.expand([user("<image>")], rows: [1, 1])
    }
    #expect(throws: TextError.imageCountMismatch(placeholders: 1, images: 0)) {
      try ImagePlaceholders.expand([user("<image>")], rows: [])
    }
    #expect(throws: TextError.imageCountMismatch(placeholders: 0, images: 1)) {
      try ImagePlaceholders.expand([ChatTurn(role: .assistant, text: "")], rows: [1])
    }
    #expect(throws: TextError.invalidImageTokenCount(image: 1, tokens: 0)) {
      try ImagePlaceholders.expand([user("")], rows: [1, 0])
    }
  }

  @Test("lets nobody write image tokens", arguments: ["<IMG_CONTEXT>", "<img>", "</img>"])
  func reserved(_ token: String) {
    for role in [ChatTurn.Role.system, .user, .assistant] {
      let turns = [user("ok"), ChatTurn(role: role, text: "x\(token)\u{301}")]
      #expect(throws: TextError.reservedToken(token: token, turn: 1)) {
        try ImagePlaceholders.expand(turns, rows: [])
      }
    }
  }

  @Test func leavesGroundingTokensToUsers() throws {
    let turns = [user("<ref>dog</ref> <box>[[1]]</box> <img src=x> &lt;IMG_CONTEXT&gt;")]
    #expect(try ImagePlaceholders.expand(turns, rows: []) == turns)
  }

  @Test func countsImageTokens() throws {
    try ImagePlaceholders.check([1, 5, 5, 2, 5], contextID: 5, rows: [2, 1])
    #expect(throws: TextError.imageTokenMismatch(expected: 2, found: 1)) {
      try ImagePlaceholders.check([5], contextID: 5, rows: [2])
    }
  }
}
