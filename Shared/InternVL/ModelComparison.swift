import Tensors

/// Compares two models of one shape, such as a model and its quantised form, by what they predict
/// for the same tokens.
public struct ModelComparison: Sendable {
  public let reference: InternVLModel
  public let other: InternVLModel
  /// The id whose places image rows take; nil where no text has pictures.
  public let placeholder: Int32?
  /// Tokens in one pass over the weights: logits of so many are in memory at a time.
  private static let chunk = 128

  public init(reference: InternVLModel, other: InternVLModel, placeholder: Int32?) {
    self.reference = reference
    self.other = other
    self.placeholder = placeholder
  }

  /// Adds the positions of a text that predict a token that counts: both models read the text's
  /// own tokens, whatever they predict.
  ///
  /// - Parameters:
  ///   - pixels: [tiles, 3, H, W] of all pictures; nil: none.
  ///   - counts: for each token whether the prediction of it counts; the first has none.
  /// - Throws: ``InternVLError``, `KernelError` for an id outside the vocabulary.
  public func add(
    _ ids: [Int32], pixels: Tensor?, counts: [Bool], to distance: inout PredictionDistance
  ) throws {
    precondition(ids.count == counts.count)
    // Sequences of their own: the two may be one.
    let models: [(model: InternVLModel, sequence: UInt64)] = [(reference, 0), (other, 1)]
    let images = try models.map { entry in try pixels.map { try entry.model.encode($0) } }
    defer { for (model, sequence) in models { model.release(sequence) } }
    for (model, sequence) in models { model.release(sequence) }
    // Nothing behind the last prediction that counts has to be read.
    let end = counts.dropFirst().lastIndex(of: true) ?? 0
    var firstImageRow = 0
    for start in stride(from: 0, to: end, by: ModelComparison.chunk) {
      let part = start..<min(start + ModelComparison.chunk, end)
      let tokens = Array(ids[part])
      let imageRows = placeholder.map { id in tokens.count { $0 == id } } ?? 0
      let logits = try zip(models, images).map { entry, images in
        try entry.model.prefill(
          entry.sequence, ids: tokens,
          images: imageRows == 0
            ? nil : images?.rows(firstImageRow..<firstImageRow + imageRows),
          placeholder: imageRows == 0 || images == nil ? nil : placeholder)
      }
      firstImageRow += imageRows
      for position in part where counts[position + 1] {
        distance.add(
          reference: logits[0][position - start], other: logits[1][position - start],
          target: ids[position + 1])
      }
    }
  }

  /// Continuations that the reference gives prompts: what a model that is in use reads. The first
  /// token of the nth continuation of a prompt is its nth most probable one; all others are the
  /// most probable.
  ///
  /// - Parameters:
  ///   - prompts: token ids, none empty.
  ///   - rank: n, counted from 0.
  ///   - limit: tokens of a continuation at most.
  ///   - ends: tokens that end one.
  /// - Returns: prompts with their continuations.
  /// - Throws: ``InternVLError``, `KernelError`.
  public func continuations(
    of prompts: [[Int32]], rank: Int, limit: Int, ends: Set<Int32>
  ) throws -> [[Int32]] {
    var texts = prompts
    var live: [Int] = []
    defer { for index in prompts.indices { reference.release(UInt64(index)) } }
    for (index, prompt) in prompts.enumerated() where limit > 0 {
      reference.release(UInt64(index))
      let logits = try reference.prefill(
        UInt64(index), ids: prompt, chunk: ModelComparison.chunk)
      let token = ModelComparison.token(logits[prompt.count - 1], rank: rank)
      texts[index].append(token)
      if !ends.contains(token), limit > 1 { live.append(index) }
    }
    while !live.isEmpty {
      let logits = try reference.decode(
        live.map { (UInt64($0), texts[$0][texts[$0].count - 1]) })
      var next: [Int] = []
      for (row, index) in live.enumerated() {
        let token = InternVLModel.greatest(logits[row])
        texts[index].append(token)
        let length = texts[index].count - prompts[index].count
        if !ends.contains(token), length < limit { next.append(index) }
      }
      live = next
    }
    return texts
  }

  /// The token that so many are more probable than; of equals the first.
  private static func token(_ logits: Tensor, rank: Int) -> Int32 {
    logits.withElements(of: Float.self) { values in
      let order = values.indices.sorted { (-values[$0], $0) < (-values[$1], $1) }
      return Int32(order[min(rank, order.count - 1)])
    }
  }
}
