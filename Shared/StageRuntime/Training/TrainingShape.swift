import InternVL
import Tensors
import Training
import Transport

/// What a stage that trains is in the mesh: known outside of the computing thread.
struct TrainingShape: Sendable {
  enum Part: Sendable {
    case vision, projector, language
  }

  struct Chunk: Sendable {
    var isFirstOfPart: Bool
    var isLastOfPart: Bool
    /// Which of the next stage's slices gets this one's output.
    var next: Int
    var hasBackward = false
    var needsInputGradient = false
    /// Whether it has actions in a step.
    var takesPart = true
  }

  var part: Part
  var chunks: [Chunk]
  /// Whether the answers are part of the loss.
  var answers = true

  /// Whether pixels are fed to the chunk.
  func takesPixels(_ chunk: Int) -> Bool { part == .vision && chunks[chunk].isFirstOfPart }
  var takesTokens: Bool { answers && isFirstOfLanguage }
  var takesLabels: Bool {
    answers && part == .language && chunks.contains(where: \.isLastOfPart)
  }
  var takesPatchTargets: Bool { part == .vision && chunks.contains(where: \.isLastOfPart) }
  var takesNamingTargets: Bool { isFirstOfLanguage }
  private var isFirstOfLanguage: Bool {
    part == .language && chunks.contains(where: \.isFirstOfPart)
  }

  /// Whether a micro-batch passes the stage by.
  func isPassed(by microBatch: MicroBatch) -> Bool {
    microBatch.tiles == 0 && !(part == .language && answers)
  }

  /// - Throws: INVALID_ARGUMENT for a micro-batch that no gateway of ours would feed.
  func check(_ microBatch: MicroBatch, pixels: [Attachment]) throws {
    func refuse(_ what: String) -> RPCError { RPCError(.invalidArgument, what) }
    guard !microBatch.samples.isEmpty else { throw refuse("a micro-batch without samples") }
    guard microBatch.rows > 0, microBatch.rows <= TrainingLimits.rows else {
      throw refuse(
        "a micro-batch of \(microBatch.rows) tokens, expected 1 to \(TrainingLimits.rows)")
    }
    for sample in microBatch.samples where !sample.fitsTurns {
      throw refuse(
        "sample \(sample.key) of \(sample.tokens) tokens has turns of \(sample.turns.prefix(16)); "
          + "a turn has a token at least, and something comes before the first")
    }
    guard microBatch.tiles <= TrainingLimits.tiles else {
      throw refuse(
        "a micro-batch of \(microBatch.tiles) tiles, at most \(TrainingLimits.tiles) are taken")
    }
    if takesTokens, microBatch.ids.count != microBatch.rows {
      throw refuse("\(microBatch.ids.count) ids for \(microBatch.rows) tokens")
    }
    if takesLabels, microBatch.labels.count != microBatch.rows {
      throw refuse("\(microBatch.labels.count) labels for \(microBatch.rows) tokens")
    }
    // They may also come later.
    let most = takesPixels(0) && microBatch.tiles > 0 ? 1 : 0
    guard pixels.count <= most else {
      throw refuse("\(pixels.count) tensors beside a micro-batch, expected \(most) at most")
    }
  }
}

extension Tensor {
  /// A copy on the heap, which uses nobody else's memory.
  func onHeap() -> Tensor {
    let copy = Tensor(uninitialized: scalarType, shape)
    copy.copyElements(from: self)
    return copy
  }
}
