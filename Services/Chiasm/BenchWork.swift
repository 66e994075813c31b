import Checkpoint
import InternVL
import Kernels
import Messages
import Sequencer
import Tensors
import Transport

/// A model in this process, and the pieces of work that are timed on it: the same for `chiasm
/// bench` and for comparisons with other programs.
struct BenchWork: Sendable {
  /// Tokens of the prompt that is filled in, and the context that decoding begins with.
  static let promptTokens = 320
  /// Sequences that are decoded together at most.
  static let greatestBatch = 8
  /// Positions kept behind the prompt.
  static let room = 64

  let model: InternVLModel
  private let pixels: Tensor
  private let prompt: Prompt
  private let imageToken: Int32
  private let checkpoint: CheckpointReader

  /// - Parameters:
  ///   - picture: a JPEG or PNG.
  ///   - turns: what ``answer(tokens:)`` is asked.
  /// - Throws: `CheckpointError`, `TextError`, `RPCError` for a picture that cannot be read.
  init(
    folder: String, device: String = "cpu", threads: Int, cacheType: CacheType = .float32,
    picture: Attachment, turns: [ChatTurn]
  ) throws {
    let builder = try PromptBuilder(modelFolder: folder)
    prompt = try builder.build(turns: turns, files: [picture.tensor])
    guard let pixels = prompt.pictures.first?.pixels else {
      preconditionFailure("a prompt with a picture has its pixels")
    }
    self.pixels = pixels[0]
    imageToken = builder.imageTokenID
    let longest = max(BenchWork.promptTokens, prompt.tokens.count) + BenchWork.room
    checkpoint = try CheckpointReader(folder: folder)
    model = try InternVLModel(
      ModelConfiguration.load(folder: folder), checkpoint: checkpoint,
      device: Devices.make(device, threads: threads),
      cacheTokens: longest * (BenchWork.greatestBatch + 1), cacheType: cacheType)
  }

  // MARK: What other programs are given too

  /// What stands at a position: nothing that a cache or a table could make use of.
  static func token(_ position: Int, sequence: Int = 0, vocabulary: Int) -> Int32 {
    Int32((position * 7919 + sequence * 104_729 + 4242) % vocabulary)
  }

  /// A tile's image rows [tokens, D].
  func image() throws -> Tensor { try model.encode(pixels) }

  /// Fills a sequence with the prompt, in one pass, for the logits of its last token.
  func prefill(_ sequence: Int = 0) throws {
    let hidden = try filled(sequence)
    let logits = Tensor(uninitialized: .float32, [1, model.language[0].vocabulary])
    try last.logits(hidden.rows(hidden.shape[0] - 1..<hidden.shape[0]), into: logits)
  }

  /// Logits [tokens, V] of the whole prompt.
  func logits() throws -> Tensor {
    let hidden = try filled(0)
    let logits = Tensor(
      uninitialized: .float32, [hidden.shape[0], model.language[0].vocabulary])
    try last.logits(hidden, into: logits)
    return logits
  }

  /// Seconds of one step for so many sequences, each behind a prompt of its own.
  ///
  /// - Parameter steps: their mean is taken; the sequences are shortened again before the next
  ///   call, so that the context does not grow.
  func decode(_ count: Int, steps: Int) throws -> Double {
    let vocabulary = model.language[0].vocabulary
    for sequence in 0..<count
    where model.length(of: UInt64(sequence)) < BenchWork.promptTokens {
      try prefill(sequence)
    }
    let logits = Tensor(uninitialized: .float32, [count, vocabulary])
    let clock = ContinuousClock()
    let began = clock.now
    for step in 0..<steps {
      let position = BenchWork.promptTokens + step
      try model.forward(
        (0..<count).map {
          BenchWork.token(position, sequence: $0, vocabulary: vocabulary)
        }, imageRows: [],
        steps: (0..<count).map {
          SequenceRows(sequence: UInt64($0), position: position, rows: $0..<$0 + 1)
        }, into: logits)
    }
    return ((clock.now - began) / .seconds(1)) / Double(steps)
  }

  private var last: LanguageStage { model.language[model.language.count - 1] }

  /// The prompt's hidden states [tokens, D] behind the last layer.
  private func filled(_ sequence: Int) throws -> Tensor {
    model.release(UInt64(sequence))
    let stage = model.language[0]
    let count = BenchWork.promptTokens
    let hidden = Tensor(uninitialized: .float32, [count, stage.width])
    try stage.embed(
      ids: (0..<count).map {
        BenchWork.token($0, sequence: sequence, vocabulary: stage.vocabulary)
      }, into: hidden)
    let rows = SequenceRows(
      sequence: UInt64(sequence), position: 0, rows: 0..<count, promptLength: count)
    for stage in model.language { try stage.forward(hidden, steps: [rows]) }
    return hidden
  }

  /// Bytes that a step of one sequence reads: all of the language model but the embedding table.
  func bytesOfStep() throws -> Int {
    try checkpoint.names.filter {
      $0.hasPrefix("language_model.")
        && $0 != WeightNames.languageEmbedding(model.configuration).name
    }.reduce(0) { bytes, name in
      guard let layout = try checkpoint.panelLayout(name) else {
        return try bytes + checkpoint.tensor(name).byteCount
      }
      return bytes + layout.tensorShape.reduce(1, *)
    }
  }

  static func seconds(_ body: () throws -> Void) rethrows -> Double {
    try ContinuousClock().measure(body) / .seconds(1)
  }

  // MARK: What a mesh is given too

  /// Seconds of one answer's parts.
  struct Answer: Sendable {
    var image = 0.0
    var prefill = 0.0
    /// All tokens but the first.
    var decode = 0.0

    var json: JSONValue {
      .object([
        ("image", .number(image)), ("prefill", .number(prefill)), ("decode", .number(decode)),
      ])
    }
  }

  /// Of ``answer(tokens:)``.
  var answerTokens: Int { prompt.tokens.count }
  var answerImageTokens: Int { prompt.imageTokenCount }

  /// Computes for an answer what a mesh computes for it, in the same pieces.
  func answer(tokens: Int) throws -> Answer {
    let sequence = UInt64(BenchWork.greatestBatch)
    defer { model.release(sequence) }
    var answer = Answer()
    var rows: [Tensor] = []
    answer.image = try BenchWork.seconds {
      rows = try prompt.pictures.map { try model.encode($0.pixels) }
    }
    var token: Int32 = 0
    answer.prefill = try BenchWork.seconds {
      token = try prefill(sequence, images: ProbeResult.joined(rows))
    }
    answer.decode = try BenchWork.seconds {
      for _ in 1..<tokens {
        token = InternVLModel.greatest(try model.decode([(sequence, token)])[0])
      }
    }
    return answer
  }

  /// The prompt in the gateway's chunks, with the logits of its last position alone.
  private func prefill(_ sequence: UInt64, images: Tensor?) throws -> Int32 {
    let ids = prompt.tokens
    let places = try ImageRows.places(
      of: images, in: ids, placeholder: images == nil ? -1 : imageToken)
    let width = model.language[0].width
    var hidden = Tensor(uninitialized: .float32, [0, width])
    let chunk = GatewayLimits().stepTokens
    for first in stride(from: 0, to: ids.count, by: chunk) {
      let part = first..<min(first + chunk, ids.count)
      hidden = Tensor(uninitialized: .float32, [part.count, width])
      try model.language[0].embed(
        ids: Array(ids[part]), imageRows: places.compactMap { $0.clipped(to: part) },
        into: hidden)
      let rows = SequenceRows(
        sequence: sequence, position: first, rows: 0..<part.count, promptLength: ids.count)
      for stage in model.language { try stage.forward(hidden, steps: [rows]) }
    }
    let logits = Tensor(uninitialized: .float32, [1, model.language[0].vocabulary])
    try last.logits(hidden.rows(hidden.shape[0] - 1..<hidden.shape[0]), into: logits)
    return InternVLModel.greatest(logits[0])
  }
}

/// What a picture and some words ask of a model, through one process or a mesh.
enum BenchQuestion {
  static let turns = [
    ChatTurn(role: "user", text: String(repeating: "a picture of something ", count: 8))
  ]
}
