import Text

/// Turns that are learnt beside each other, hidden from each other, behind their pictures.
extension SampleEncoder {
  /// The prefix, up to the line break behind the last picture, and of each question with its answer
  /// what follows the prefix in a chat that asks nothing else. So what is learnt is what is served:
  /// prefix and turn are the very tokens of such a chat.
  ///
  /// The limit cuts the last turns off, and what is left of a turn that learns nothing.
  ///
  /// - Parameters: as ``encode(_:tiles:)`` takes them.
  /// - Returns: nil where turns cannot do without each other, or need not: there is but one, or the
  ///   pictures are not all at the very beginning, each in a line of its own, before a question.
  /// - Throws: ``UnplacedFlaw``.
  func encodeSeparately(_ turns: [ChatTurn], tiles: [Int]) throws -> Encoded? {
    guard turns.count > 2, let lead = SampleEncoder.lead(turns) else { return nil }
    try requireRoom(tiles: tiles)
    do {
      let chats = try stride(from: 0, to: turns.count, by: 2).map { index in
        let question = index == 0 ? turns[0].text : lead + turns[index].text
        return try chat(question, turns[index + 1].text, tiles.count, answer: index / 2 + 1)
      }
      guard let prefix = try prefix(of: chats) else { throw mismatch(answer: 1) }
      return try join(prefix, chats, tiles)
    } catch let error as TextError {
      throw SampleEncoder.flaw(error)
    }
  }

  /// A question about the pictures and its answer. Pictures have one token each, or the tokens of
  /// all would be made for every question.
  private struct Chat {
    var text: String
    var ids: [Int32]
    var learnt: Range<Int>
  }

  private func chat(
    _ question: String, _ answer: String, _ pictures: Int, answer number: Int
  ) throws -> Chat {
    let turns = try ImagePlaceholders.expand(
      [ChatTurn(role: .user, text: question), ChatTurn(role: .assistant, text: answer)],
      rows: Array(repeating: 1, count: pictures))
    let text = try template.render(
      systemMessage: systemMessage, turns: turns, opensAssistantTurn: false)
    let ids = try encode(text)
    guard let learnt = try? learnt(turns, ids).first, imageTokens(ids) == pictures else {
      throw mismatch(answer: number)
    }
    return Chat(text: text, ids: ids, learnt: learnt)
  }

  /// The tokens up to the line break behind the pictures; without it, where a tokenizer takes it
  /// together with what follows.
  private func prefix(of chats: [Chat]) throws -> [Int32]? {
    guard let text = chats.first?.text,
      let end = text.lastRange(of: ImagePlaceholders.end)?.upperBound
    else { return nil }
    for beginning in [text[..<end] + "\n", text[..<end]] {
      let ids = try encode(String(beginning))
      if imageTokens(ids) == imageTokens(chats[0].ids),
        chats.allSatisfy({ $0.ids.starts(with: ids) && $0.learnt.lowerBound > ids.count })
      {
        return ids
      }
    }
    return nil
  }

  private func join(_ prefix: [Int32], _ chats: [Chat], _ tiles: [Int]) throws -> Encoded {
    var ids: [Int32] = []
    var pictures = tiles[...]
    for id in prefix {
      let count = id == contextID ? pictures.removeFirst() * imageTokenCount : 1
      ids += Array(repeating: id, count: count)
    }
    var (start, learnt) = (ids.count, [Range<Int>]())
    for chat in chats {
      let shift = ids.count - prefix.count
      learnt.append(chat.learnt.lowerBound + shift..<chat.learnt.upperBound + shift)
      ids += chat.ids.dropFirst(prefix.count)
    }
    var encoded = try cut(ids, learnt, tiles)
    for chat in chats {
      let end = min(start + chat.ids.count - prefix.count, encoded.ids.count)
      guard start < end,
        encoded.labels[start..<end].contains(where: { $0 != SampleEncoder.ignored })
      else { break }
      encoded.turns.append(end - start)
      start = end
    }
    encoded.ids.removeSubrange(start...)
    encoded.labels.removeSubrange(start...)
    if encoded.turns.count == 1 { encoded.turns = [] }
    return encoded
  }

  /// The placeholders of a sample's pictures with their line breaks, where the first question
  /// begins with them and follows, and no other turn has any.
  private static func lead(_ turns: [ChatTurn]) -> String? {
    let mark = ImagePlaceholders.placeholder
    guard turns.dropFirst().allSatisfy({ $0.role != .user || $0.text.lastRange(of: mark) == nil })
    else { return nil }
    let line = Array((mark + "\n").utf8)
    var rest = Array(turns[0].text.utf8)[...]
    var lead = ""
    while rest.starts(with: line) {
      rest.removeFirst(line.count)
      lead += mark + "\n"
    }
    let question = String(decoding: rest, as: UTF8.self)
    guard !lead.isEmpty, question.lastRange(of: mark) == nil,
      !question.allSatisfy(\.isWhitespace)
    else { return nil }
    return lead
  }
}

extension String {
  /// Where a text that is not empty is last, compared as bytes, as the tokenizer will.
  fileprivate func lastRange(of text: String) -> Range<Index>? {
    let text = Array(text.utf8)
    guard utf8.count >= text.count else { return nil }
    var start = utf8.index(endIndex, offsetBy: -text.count)
    while true {
      if utf8[start...].starts(with: text) {
        return start..<utf8.index(start, offsetBy: text.count)
      }
      guard start > startIndex else { return nil }
      start = utf8.index(before: start)
    }
  }
}
