/// How the layers of one part of the model are shared out among its stages.
public enum LayerSplit {
  /// Contiguous ranges of layers, in order, whose lengths differ by at most one; the longer
  /// ones come last, since the first stage also holds the embeddings.
  ///
  /// - Throws: ``InternVLError/unevenSplit(layers:stages:)`` for more stages than layers, and
  ///   for less than one.
  public static func even(layers: Int, stages: Int) throws -> [Range<Int>] {
    guard stages >= 1, stages <= max(layers, 1) else {
      throw InternVLError.unevenSplit(layers: layers, stages: stages)
    }
    let bounds = (0...stages).map { $0 * layers / stages }
    return zip(bounds, bounds.dropFirst()).map { $0..<$1 }
  }

  /// Whether stages, in this order, hold every layer of a part once.
  ///
  /// - Throws: ``InternVLError/stagesDoNotCover(part:stages:available:)``.
  public static func requireCover(
    _ stages: [Range<Int>], of layers: Int, part: String
  ) throws {
    let starts = stages.map(\.lowerBound) + [layers]
    let ends = [0] + stages.map(\.upperBound)
    guard starts == ends else {
      throw InternVLError.stagesDoNotCover(part: part, stages: stages, available: layers)
    }
  }

  /// - Throws: ``InternVLError/layersOutsideModel(part:layers:available:)``.
  static func check(_ layers: Range<Int>, available: Int, part: String) throws {
    // A model may use no vision layer at all: then the embeddings are a stage of none.
    guard !layers.isEmpty || available == 0, layers.lowerBound >= 0,
      layers.upperBound <= available
    else {
      throw InternVLError.layersOutsideModel(part: part, layers: layers, available: available)
    }
  }
}
