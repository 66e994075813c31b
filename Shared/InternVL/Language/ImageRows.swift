import Tensors

/// Rows of pictures that take the place of token embeddings in one step.
public struct ImageRows: Sendable {
  /// The step's first row that is replaced.
  public var row: Int
  /// The rows [n, D], as the projector gives them, for rows `row..<row + n` of the step.
  public var features: Tensor

  public init(row: Int, features: Tensor) {
    self.row = row
    self.features = features
  }

  /// Finds where the image rows of a prompt belong.
  ///
  /// Rows of `images`, in order, go to the places in `ids` that hold `placeholder`, in order, as
  /// in `input_embeds[input_ids == img_context_token_id] = vit_embeds` of the reference's
  /// modeling_internvl_chat.py. Neighbouring places become one value.
  ///
  /// - Parameters:
  ///   - images: [n, D]: the rows of all pictures, one picture after another.
  ///   - placeholder: The id of `<IMG_CONTEXT>`; nil: no token is one.
  /// - Throws: ``InternVLError/placeholderMismatch(placeholders:imageRows:)`` when `ids` holds
  ///   more or fewer placeholders than there are rows.
  public static func places(
    of images: Tensor?, in ids: [Int32], placeholder: Int32?
  ) throws -> [ImageRows] {
    let placeholders = ids.indices.filter { ids[$0] == placeholder }
    let available = images?.shape.first ?? 0
    guard placeholders.count == available else {
      throw InternVLError.placeholderMismatch(
        placeholders: placeholders.count, imageRows: available)
    }
    guard let images else { return [] }
    var places: [ImageRows] = []
    var start = 0
    while start < placeholders.count {
      var end = start + 1
      while end < placeholders.count, placeholders[end] == placeholders[end - 1] + 1 { end += 1 }
      places.append(ImageRows(row: placeholders[start], features: images.rows(start..<end)))
      start = end
    }
    return places
  }

  /// The part of the rows that falls into `rows`, counted from its first.
  public func clipped(to rows: Range<Int>) -> ImageRows? {
    let own = row..<row + features.shape[0]
    let common = own.clamped(to: rows)
    guard !common.isEmpty else { return nil }
    return ImageRows(
      row: common.lowerBound - rows.lowerBound,
      features: features.rows(common.lowerBound - row..<common.upperBound - row))
  }
}
