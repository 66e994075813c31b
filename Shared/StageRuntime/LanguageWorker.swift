import Checkpoint
import InternVL
import Messages
import Sampling
import Tensors
import Transport

/// What a language stage remembers between steps: caches, pictures, and which sequences are
/// over. All but ``cache`` and ``checkShape(of:tensors:)`` belongs to the computing thread.
final class LanguageWorker: @unchecked Sendable {
  private let current: Current<LanguageStage>
  private let configuration: ModelConfiguration
  private let layers: Range<Int>
  private let pictureBytes: Int

  /// Image rows of sequences, by picture.
  private var pictures: [UInt64: [Int: Tensor]] = [:]
  private var pictureBytesHeld = 0
  /// Tokens generated so far, for the repetition penalty of the last stage.
  private var generated: [UInt64: [Int32]] = [:]
  /// What ``logitRoom(_:_:)`` has given out.
  private var room: Tensor?
  /// Sequences that are over: a step or a picture of theirs that comes late is turned away.
  private var over: Set<UInt64> = []
  private var overInOrder: [UInt64] = []
  /// Sessions that ended last.
  private var gone: [UInt32] = []

  init(
    stage: LanguageStage, configuration: ModelConfiguration, layers: Range<Int>,
    pictureBytes: Int
  ) {
    current = Current(stage)
    self.configuration = configuration
    self.layers = layers
    self.pictureBytes = pictureBytes
  }

  private var stage: LanguageStage { current.value }
  var cache: KeyValueCache { stage.cache }
  var isFirst: Bool { layers.lowerBound == 0 }
  var isLast: Bool { layers.upperBound == configuration.language.layerCount }

  /// What a step came to in this stage.
  struct Outcome: Sendable {
    /// Sampled tokens, and the sequences that failed here.
    var results: [SequenceResult] = []
    /// The sequences whose rows go on, and how many rows they have.
    var passed: [SequenceStep] = []
    var rows = 0
    /// [rows, V], when a step asked for them.
    var logits: Tensor?
  }

  /// Goes on with other weights, and an empty cache: sequences at work have to begin anew.
  func serve(_ stage: LanguageStage) {
    current.value = stage
    generated = [:]
  }

  // MARK: Borders

  /// - Returns: the number of rows of a step.
  /// - Throws: INVALID_ARGUMENT for a step that no gateway or stage of ours would send.
  func checkShape(of steps: [SequenceStep], tensors: [Attachment]) throws -> Int {
    guard !steps.isEmpty, steps.count <= StageLimits.sequences else {
      throw RPCError(
        .invalidArgument,
        "a step of \(steps.count) sequences, expected 1 to \(StageLimits.sequences)")
    }
    var rows = 0
    var seen: Set<UInt64> = []
    for step in steps {
      let id = step.sequence
      guard seen.insert(id).inserted else {
        throw RPCError(.invalidArgument, "sequence \(id) has two parts in one step")
      }
      guard !step.tokens.isEmpty,
        step.imageRows.isEmpty || step.imageRows.count == step.tokens.count
      else {
        throw RPCError(
          .invalidArgument,
          "sequence \(id) has \(step.tokens.count) tokens and \(step.imageRows.count) image rows")
      }
      rows += step.tokens.count
    }
    let logitRows = steps.reduce(0) { $0 + ($1.captureLogits ? $1.tokens.count : 1) }
    guard logitRows <= StageLimits.logitRows else {
      throw RPCError(
        .invalidArgument,
        "a step that asks for \(logitRows) rows of logits, at most \(StageLimits.logitRows) are "
          + "computed")
    }
    guard rows <= StageLimits.rows else {
      throw RPCError(
        .invalidArgument, "a step of \(rows) rows, at most \(StageLimits.rows) are taken")
    }
    let name = "language layers \(layers.lowerBound)-\(layers.upperBound - 1)"
    guard tensors.count == (isFirst ? 0 : 1) else {
      throw RPCError(
        .invalidArgument,
        "\(name) got \(tensors.count) tensors beside a step, expected \(isFirst ? 0 : 1)")
    }
    let expected = [rows, configuration.language.hiddenSize]
    if let hidden = tensors.first?.tensor,
      hidden.scalarType != .float32 || hidden.shape != expected
    {
      throw RPCError(
        .invalidArgument,
        "\(name) got a \(hidden.scalarType) tensor \(hidden.shape), expected float32 "
          + "\(expected)")
    }
    return rows
  }

  // MARK: Pictures

  /// Keeps a picture's rows until its sequence ends.
  ///
  /// - Returns: the number of rows.
  func place(_ rows: Tensor, sequence: UInt64, picture: Int) throws -> Int {
    let width = configuration.language.hiddenSize
    guard isFirst else {
      throw RPCError(
        .failedPrecondition,
        "image rows go to the first language stage, this one begins at layer "
          + "\(layers.lowerBound); fix the projector's --next")
    }
    guard rows.scalarType == .float32, rows.shape.count == 2, rows.shape[1] == width,
      rows.shape[0] > 0, rows.shape[0] <= StageLimits.tiles * configuration.imageTokenCount
    else {
      throw RPCError(
        .invalidArgument,
        "image rows are \(rows.scalarType) \(rows.shape), expected float32 [n, \(width)]")
    }
    guard !isOver(sequence) else {
      throw RPCError(.cancelled, "sequence \(sequence) is over")
    }
    guard pictureBytesHeld + rows.byteCount <= pictureBytes else {
      throw RPCError(
        .resourceExhausted,
        "pictures of \(pictureBytesHeld) bytes wait for their answers, the most is "
          + "\(pictureBytes); try again later or raise --picture-bytes")
    }
    // Out of the arena, which is the projector's to fill again.
    let copy = Tensor(uninitialized: .float32, rows.shape)
    copy.copyElements(from: rows)
    pictureBytesHeld += copy.byteCount
    if let old = pictures[sequence, default: [:]].updateValue(copy, forKey: picture) {
      pictureBytesHeld -= old.byteCount
    }
    return rows.shape[0]
  }

  /// Finds the rows that take the place of embeddings in one sequence's part of a step.
  private func imageRows(of step: SequenceStep, at first: Int) throws -> [ImageRows] {
    guard step.imageRows.contains(where: { $0 != 0 }) else { return [] }
    let held = pictures[step.sequence] ?? [:]
    let ordered = held.keys.sorted().compactMap { held[$0] }
    var places: [ImageRows] = []
    for (offset, number) in step.imageRows.enumerated() where number != 0 {
      var index = Int(number) - 1
      var source: Tensor?
      for rows in ordered {
        if index < rows.shape[0] {
          source = rows.rows(index..<index + 1)
          break
        }
        index -= rows.shape[0]
      }
      guard let source else {
        throw RPCError(
          .unavailable,
          "image row \(number) of sequence \(step.sequence) is not here; the stage was "
            + "restarted after the picture came, ask again")
      }
      places.append(ImageRows(row: first + offset, features: source))
    }
    return places
  }

  // MARK: Steps

  /// Runs a step through the slice.
  ///
  /// - Parameters:
  ///   - hidden: [rows, D] for all but the first stage.
  ///   - output: [rows, D]; its first ``Outcome/rows`` rows hold the result.
  func forward(_ steps: [SequenceStep], hidden: Tensor?, into output: Tensor) throws -> Outcome {
    var outcome = Outcome()
    var parts: [SequenceRows] = []
    var ids: [Int32] = []
    var images: [ImageRows] = []
    var inputRow = 0
    for step in steps {
      let count = step.tokens.count
      defer { inputRow += count }
      do {
        let start = outcome.rows
        try admit(step)
        if isFirst {
          images += try imageRows(of: step, at: start)
          ids += step.tokens
        } else if let hidden {
          output.rows(start..<start + count).copyElements(
            from: hidden.rows(inputRow..<inputRow + count))
        }
        parts.append(
          SequenceRows(
            sequence: step.sequence, position: step.position,
            rows: start..<start + count, promptLength: step.promptTokens))
        outcome.passed.append(step)
        outcome.rows += count
      } catch {
        outcome.results.append(SequenceResult(failure: RPCError(handlerError: error), of: step))
      }
    }
    guard outcome.rows > 0 else { return outcome }
    let rows = output.rows(0..<outcome.rows)
    if isFirst { try stage.embed(ids: ids, imageRows: images, into: rows) }
    try stage.forward(rows, steps: parts)
    if isLast { try finish(&outcome, rows: rows, parts: parts) }
    return outcome
  }

  /// Makes sure that a sequence's part can be computed here.
  private func admit(_ step: SequenceStep) throws {
    let id = step.sequence
    let position = step.position
    let end = position + step.tokens.count
    guard !isOver(id) else { throw RPCError(.cancelled, "sequence \(id) is over") }
    guard end <= stage.contextLength else {
      throw RPCError(
        .outOfRange,
        "sequence \(id) would reach \(end) positions, the model knows "
          + "\(stage.contextLength)")
    }
    let vocabulary = configuration.language.vocabularySize
    if let id = step.tokens.first(where: { $0 < 0 || $0 >= vocabulary }) {
      throw RPCError(
        .invalidArgument, "token id \(id) is outside the vocabulary of \(vocabulary)")
    }
    guard let length = stage.cache.length(of: id) ?? (position == 0 ? 0 : nil),
      length >= position
    else {
      throw RPCError(
        .unavailable,
        "sequence \(id) is at position \(position), of which this stage holds "
          + "\(stage.cache.length(of: id) ?? 0); it was restarted, ask again")
    }
    try stage.cache.reserve(sequence: id, tokens: max(end, step.reserve ?? 0))
  }

  /// Logits and sampling, which only the last stage does.
  private func finish(_ outcome: inout Outcome, rows: Tensor, parts: [SequenceRows]) throws {
    let width = configuration.language.hiddenSize
    let vocabulary = configuration.language.vocabularySize
    var chosen: [Range<Int>] = []
    for (step, part) in zip(outcome.passed, parts) {
      if step.captureLogits {
        chosen.append(part.rows)
      } else if step.sample {
        chosen.append(part.rows.upperBound - 1..<part.rows.upperBound)
      } else {
        chosen.append(part.rows.upperBound..<part.rows.upperBound)
      }
    }
    let count = chosen.reduce(0) { $0 + $1.count }
    guard count > 0 else {
      outcome.results += outcome.passed.map { SequenceResult(of: $0) }
      return
    }
    var next = 0
    var gathered = rows
    if count < rows.shape[0] {
      gathered = Tensor(uninitialized: .float32, [count, width])
      for range in chosen where !range.isEmpty {
        gathered.rows(next..<next + range.count).copyElements(from: rows.rows(range))
        next += range.count
      }
    }
    let isCaptured = outcome.passed.contains { $0.captureLogits }
    let logits =
      isCaptured
      ? Tensor(uninitialized: .float32, [count, vocabulary]) : logitRoom(count, vocabulary)
    try stage.logits(gathered, into: logits)
    next = 0
    for (step, range) in zip(outcome.passed, chosen) {
      next += range.count
      var result = SequenceResult(of: step)
      if step.sample {
        do {
          try sample(logits[next - 1], step, into: &result)
        } catch {
          result = SequenceResult(failure: RPCError(handlerError: error), of: step)
        }
      }
      outcome.results.append(result)
    }
    if isCaptured { outcome.logits = logits }
  }

  /// Memory for logits that nobody reads but the sampler, before the next step.
  private func logitRoom(_ rows: Int, _ vocabulary: Int) -> Tensor {
    if let room, room.shape[0] >= rows { return room.rows(0..<rows) }
    let fresh = Tensor(uninitialized: .float32, [rows, vocabulary])
    if rows <= LanguageWorker.keptLogitRows { room = fresh }
    return fresh
  }

  /// Rows of logits for which memory is kept from step to step.
  private static let keptLogitRows = 64

  private func sample(
    _ logits: Tensor, _ step: SequenceStep, into result: inout SequenceResult
  ) throws {
    let id = step.sequence
    let end = step.position + step.tokens.count
    let index = end - step.promptTokens
    guard index >= 0 else {
      throw RPCError(.invalidArgument, "sequence \(id) asks for a token inside its prompt")
    }
    // The tokens generated so far end with those of this step.
    var history = generated[id] ?? []
    if index > 0 {
      let fresh = step.tokens.suffix(index)
      history.removeLast(max(0, history.count - (index - fresh.count)))
      history += fresh
    } else {
      history = []
    }
    let parameters = try Sampling.SamplingParameters(
      step.sampling ?? Messages.SamplingParameters())
    let sampled = try logits.withElements(of: Float.self) {
      try Sampler.sample(
        UnsafeBufferPointer($0), parameters: parameters,
        generated: history.lazy.map { UInt32(bitPattern: $0) }, step: index)
    }
    generated[id] = history
    result.token = Int32(sampled.token)
    result.logprob = sampled.logprob
    result.top = sampled.top.map {
      Messages.TokenLogprob(token: Int32($0.token), logprob: $0.logprob)
    }
  }

  // MARK: Ends

  func end(_ sequences: [UInt64]) {
    for id in sequences { forget(id) }
  }

  /// Begins a gateway's session, without what an earlier connection of it has left.
  func begin(session: UInt32) {
    forget(session: session)
    gone.removeAll { $0 == session }
  }

  /// Forgets everything of a gateway's session, and turns away what still comes of it.
  func forget(session: UInt32) {
    let ids = Set(stage.cache.sequences).union(pictures.keys)
    for id in ids where id >> 32 == UInt64(session) { forget(id) }
    gone.append(session)
    if gone.count > StageLimits.rememberedSessions { gone.removeFirst() }
  }

  private func isOver(_ sequence: UInt64) -> Bool {
    over.contains(sequence) || gone.contains { UInt64($0) == sequence >> 32 }
  }

  private func forget(_ id: UInt64) {
    stage.cache.release(sequence: id)
    generated[id] = nil
    for rows in (pictures.removeValue(forKey: id) ?? [:]).values {
      pictureBytesHeld -= rows.byteCount
    }
    if over.insert(id).inserted {
      overInOrder.append(id)
      // Ids are never used again, so only stragglers of the last moments can still come.
      if overInOrder.count > 2 * StageLimits.remembered {
        over.subtract(overInOrder.prefix(StageLimits.remembered))
        overInOrder.removeFirst(StageLimits.remembered)
      }
    }
  }
}

extension SequenceResult {
  /// Nothing sampled, nothing wrong.
  init(of step: SequenceStep) {
    self.init()
    sequence = step.sequence
  }

  init(failure: RPCError, of step: SequenceStep) {
    self.init(of: step)
    errorCode = failure.code
    errorMessage = failure.message
  }
}

extension Sampling.SamplingParameters {
  /// What a message says, with every absent field off.
  ///
  /// - Throws: ``SamplingError`` for values that make no sense.
  init(_ message: Messages.SamplingParameters) throws {
    self.init()
    temperature = message.temperature
    topK = message.topK
    topP = message.topP
    minP = message.minP
    repetitionPenalty = message.repetitionPenalty
    seed = message.seed ?? 0
    topLogprobs = message.topLogprobs
    try validate()
  }
}
