import Checkpoint
import Text

/// Turns conversations into token ids, and says which of them are learnt.
///
/// Learnt are the answers, each with the token that closes it, and nothing else
/// (`preprocess_mpt` and `preprocess` of internvl_chat_finetune.py in OpenGVLab/InternVL). Where
/// the parts of a text give other tokens than the whole, the reference learns nothing of the
/// sample and says so in a log; here that is a flaw of the sample.
public struct SampleEncoder: Sendable {
  /// The label of what is not learnt.
  public static let ignored: Int32 = -100
  /// The id that fills up samples which are padded.
  public static let padding: Int32 = 0

  public struct Encoded: Sendable, Equatable {
    /// At most the limit.
    public var ids: [Int32]
    public var labels: [Int32]
    /// Tokens before the limit cut some.
    public var uncutCount: Int
    /// Tokens of each of the turns at the end that are hidden from each other; empty: one whole.
    public var turns: [Int] = []

    public var learnt: Int { labels.count { $0 != SampleEncoder.ignored } }
  }

  public let tokenizer: Tokenizer
  public let template: ChatTemplate
  public let systemMessage: String
  /// Image tokens of a tile.
  public let imageTokenCount: Int
  /// Tokens of a sample at most: what was asked for, or all positions the model has.
  public let maxSequenceLength: Int
  let contextID: Int32
  /// What closes an answer.
  private let endToken: String
  private let endID: Int32

  /// - Parameters:
  ///   - template: instead of the one that config.json names.
  /// - Throws: ``TextError``, ``TrainingDataError``.
  public init(
    modelFolder: String, configuration: ModelConfiguration, template: String? = nil,
    maxSequenceLength: Int
  ) throws {
    guard maxSequenceLength >= 8 else {
      throw TrainingDataError.invalidOption(
        name: "max-seq-length", found: "\(maxSequenceLength)", expected: "8 at least")
    }
    let tokenizer = try Tokenizer(folder: modelFolder)
    func id(_ token: String) throws -> Int32 {
      guard let id = tokenizer.id(of: token).flatMap({ Int32(exactly: $0) }) else {
        throw TrainingDataError.unusableModel(
          folder: modelFolder, reason: "its tokenizer has no token \(token)")
      }
      return id
    }
    guard tokenizer.vocabularySize <= Int(Int32.max) else {
      throw TrainingDataError.unusableModel(
        folder: modelFolder, reason: "its tokenizer has more tokens than 32 bits can number")
    }
    let template = try ChatTemplate(named: template ?? configuration.templateName)
    contextID = try id(ImagePlaceholders.context)
    endToken = template == .internvlZh ? "</s>" : "<|im_end|>"
    endID = try id(endToken)
    systemMessage = configuration.systemMessage ?? template.defaultSystemMessage
    imageTokenCount = configuration.imageTokenCount
    self.tokenizer = tokenizer
    self.template = template
    self.maxSequenceLength = min(maxSequenceLength, configuration.language.contextLength)
  }

  /// How many of `ids` are places of image rows.
  public func imageTokens(_ ids: [Int32]) -> Int { ids.count { $0 == contextID } }

  /// Looks whether pictures fit, before anything of their size is made.
  ///
  /// - Throws: ``UnplacedFlaw``.
  func requireRoom(tiles: [Int]) throws {
    var rows = 0
    for count in tiles {
      rows += count * imageTokenCount
      guard rows <= maxSequenceLength else {
        throw UnplacedFlaw(
          .cutImage,
          "the first \(rows) image tokens alone are more than the limit of \(maxSequenceLength), "
            + "which would cut an image off")
      }
    }
  }

  /// - Parameters:
  ///   - turns: as ``turns(_:)`` gives them.
  ///   - tiles: of each picture in order.
  /// - Throws: ``UnplacedFlaw``.
  func encode(_ turns: [ChatTurn], tiles: [Int]) throws -> Encoded {
    try requireRoom(tiles: tiles)
    do {
      let expanded = try ImagePlaceholders.expand(
        turns, rows: tiles.map { $0 * imageTokenCount })
      let ids = try encode(
        template.render(systemMessage: systemMessage, turns: expanded, opensAssistantTurn: false))
      return try cut(ids, learnt(expanded, ids), tiles)
    } catch let error as TextError {
      throw SampleEncoder.flaw(error)
    }
  }

  func encode(_ text: String) throws -> [Int32] {
    try tokenizer.encode(text).map { Int32($0) }
  }

  static func flaw(_ error: TextError) -> UnplacedFlaw {
    switch error {
    case .reservedToken: UnplacedFlaw(.reservedToken, "\(error)")
    case .imageCountMismatch: UnplacedFlaw(.imageCountMismatch, "\(error)")
    default: UnplacedFlaw(.tokenization, "\(error)")
    }
  }

  // MARK: Turns

  /// The turns of a sample as the template takes them, beginning with a human's and ending with
  /// an answer, with a placeholder for each picture.
  ///
  /// - Throws: ``UnplacedFlaw``.
  static func turns(_ record: SampleRecord) throws -> [ChatTurn] {
    var spoken = record.conversations[...]
    if spoken.first?.from == "gpt" { spoken.removeFirst() }
    guard !spoken.isEmpty else {
      throw UnplacedFlaw(.noAnswer, "nobody says anything that could be learnt")
    }
    var turns: [ChatTurn] = []
    for (index, turn) in zip(spoken.indices, spoken) {
      let isHuman = turns.count.isMultiple(of: 2)
      guard turn.from == (isHuman ? "human" : "gpt") else {
        throw UnplacedFlaw(
          .wrongRoles,
          "turn \(index + 1) is from “\(Clip.text(turn.from))”, expected "
            + (isHuman ? "human" : "gpt"))
      }
      turns.append(ChatTurn(role: isHuman ? .user : .assistant, text: turn.value))
    }
    guard turns.count.isMultiple(of: 2) else {
      throw UnplacedFlaw(.noAnswer, "the last turn is a human's, without an answer")
    }

    let placeholder = ImagePlaceholders.placeholder
    if record.images.isEmpty {
      for index in turns.indices {
        turns[index].text = turns[index].text.removing(placeholder).removing("<query>")
      }
    } else {
      if record.images.count == 1, turns[0].text.occurrences(of: placeholder) == 0 {
        turns[0].text = "\(placeholder)\n" + turns[0].text
      }
      for (index, turn) in turns.enumerated() where turn.role == .assistant {
        guard turn.text.occurrences(of: placeholder) == 0 else {
          throw UnplacedFlaw(
            .imageCountMismatch, "answer \(index / 2 + 1) holds \(placeholder)")
        }
      }
      let found = turns.reduce(0) { $0 + $1.text.occurrences(of: placeholder) }
      guard found == record.images.count else {
        throw UnplacedFlaw(
          .imageCountMismatch,
          "\(found) \(placeholder) in the text, \(record.images.count) pictures")
      }
    }
    for (index, turn) in turns.enumerated() {
      if turn.role == .assistant, turn.text.allSatisfy(\.isWhitespace) {
        throw UnplacedFlaw(.noAnswer, "answer \(index / 2 + 1) has no words")
      }
      // The reference leaves the end of an empty turn away, and the count of tokens is wrong.
      guard !turn.text.isEmpty else {
        throw UnplacedFlaw(.emptyTurn, "question \(index / 2 + 1) has no words")
      }
    }
    return turns
  }

  // MARK: Labels

  /// The tokens of the answers, one range each.
  func learnt(_ turns: [ChatTurn], _ ids: [Int32]) throws -> [Range<Int>] {
    template == .internvlZh ? try learntByPrefixes(turns, ids) : try learntByGroups(turns, ids)
  }

  /// Hermes-2: each question and answer are encoded by themselves, and their counts say where in
  /// the whole they lie.
  private func learntByGroups(_ turns: [ChatTurn], _ ids: [Int32]) throws -> [Range<Int>] {
    let opening = try template.render(
      systemMessage: systemMessage, turns: [], opensAssistantTurn: false)
    var learnt: [Range<Int>] = []
    var cursor = 0
    for index in stride(from: 0, to: turns.count, by: 2) {
      var header = try template.render(
        systemMessage: systemMessage, turns: [turns[index]], opensAssistantTurn: true)
      if index > 0 { header = String(header.utf8.dropFirst(opening.utf8.count)) ?? header }
      let instruction = try encode(header).count
      // And the token that closes the answer.
      let count = try encode(header + turns[index + 1].text).count + 1
      guard instruction < count, cursor + count <= ids.count, ids[cursor + count - 1] == endID
      else { throw mismatch(answer: index / 2 + 1) }
      learnt.append(cursor + instruction..<cursor + count)
      cursor += count
    }
    // An unknown character has the id of the padding, which the reference does not count.
    guard cursor == ids.count, !ids.contains(SampleEncoder.padding) else {
      throw mismatch(answer: turns.count / 2)
    }
    return learnt
  }

  /// internvl_zh: an answer begins where the prompt for it ends, and ends with `</s>`.
  ///
  /// The tokenizer splits a text at `</s>`, so that what comes behind one can be encoded by itself;
  /// whole prompts, each with all turns before, would take time that grows with the square.
  private func learntByPrefixes(_ turns: [ChatTurn], _ ids: [Int32]) throws -> [Range<Int>] {
    let opening = try template.render(systemMessage: "", turns: [], opensAssistantTurn: false)
    var learnt: [Range<Int>] = []
    var end = 0
    for index in stride(from: 0, to: turns.count, by: 2) {
      var prompt: [Int32]
      if index == 0 {
        prompt = try encode(
          template.render(
            systemMessage: systemMessage, turns: [turns[0]], opensAssistantTurn: true))
      } else {
        let text = try template.render(
          systemMessage: "", turns: [turns[index]], opensAssistantTurn: true)
        let own = String(text.utf8.dropFirst(opening.utf8.count)) ?? text
        prompt = try encode(endToken + own)
        guard let before = prompt.firstIndex(of: endID) else {
          throw mismatch(answer: index / 2 + 1)
        }
        prompt.removeSubrange(...before)
      }
      let start = end + prompt.count
      guard ids[end...].starts(with: prompt), let close = ids[start...].firstIndex(of: endID)
      else { throw mismatch(answer: index / 2 + 1) }
      end = close + 1
      learnt.append(start..<end)
    }
    guard end == ids.count else { throw mismatch(answer: turns.count / 2) }
    return learnt
  }

  func mismatch(answer: Int) -> UnplacedFlaw {
    UnplacedFlaw(
      .tokenization,
      "up to answer \(answer) the parts of the text give other tokens than the whole; "
        + "white space around a turn or a character that the tokenizer does not know does that")
  }

  // MARK: The limit

  func cut(_ ids: [Int32], _ learnt: [Range<Int>], _ tiles: [Int]) throws -> Encoded {
    let rows = tiles.reduce(0, +) * imageTokenCount
    guard imageTokens(ids) == rows else {
      throw UnplacedFlaw(
        .tokenization, "\(imageTokens(ids)) image tokens for \(rows) image rows")
    }
    var labels = [Int32](repeating: SampleEncoder.ignored, count: ids.count)
    for range in learnt { labels.replaceSubrange(range, with: ids[range]) }
    guard ids.count > maxSequenceLength else {
      return Encoded(ids: ids, labels: labels, uncutCount: ids.count)
    }
    // The token after the last image row closes the image.
    if let last = ids.lastIndex(of: contextID), last + 1 >= maxSequenceLength {
      throw UnplacedFlaw(
        .cutImage,
        "\(ids.count) tokens, the limit of \(maxSequenceLength) would cut an image off")
    }
    let encoded = Encoded(
      ids: Array(ids[..<maxSequenceLength]), labels: Array(labels[..<maxSequenceLength]),
      uncutCount: ids.count)
    guard encoded.labels.dropFirst().contains(where: { $0 != SampleEncoder.ignored }) else {
      throw UnplacedFlaw(
        .nothingLearnt,
        "\(ids.count) tokens, and no answer begins before the limit of \(maxSequenceLength)")
    }
    return encoded
  }
}

extension String {
  fileprivate func occurrences(of text: String) -> Int { places(of: text).count }

  fileprivate func removing(_ text: String) -> String {
    let places = places(of: text)
    guard !places.isEmpty else { return self }
    var bytes = Array(utf8)
    for place in places.reversed() { bytes.removeSubrange(place..<place + text.utf8.count) }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Where a text that is not empty begins in this one. Compared as bytes, as the tokenizer will:
  /// Swift characters may swallow a combining mark.
  private func places(of text: String) -> [Int] {
    let text = Array(text.utf8)
    return Array(utf8).withUnsafeBufferPointer { bytes in
      var places: [Int] = []
      var start = 0
      while start + text.count <= bytes.count {
        if bytes[start] == text[0], text.indices.allSatisfy({ bytes[start + $0] == text[$0] }) {
          places.append(start)
          start += text.count
        } else {
          start += 1
        }
      }
      return places
    }
  }
}
