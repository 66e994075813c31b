import Tensors

/// A chat request made ready for the model.
public struct Prompt: Sendable {
  /// The rendered template's token ids, image tokens included.
  public var tokens: [Int32]
  /// For each token 0, or 1 + the image row that takes its embedding's place, counted over all
  /// pictures.
  public var imageRows: [Int32]
  public var pictures: [Picture]

  public struct Picture: Sendable {
    /// [tiles, 3, H, W], normalized.
    public var pixels: Tensor
    /// SHA-256 of the decoded 8-bit RGB bytes.
    public var decodedSHA256: String
    /// SHA-256 of the resized 8-bit RGB bytes, tile after tile.
    public var resizedSHA256: String
  }

  public var imageTokenCount: Int { imageRows.count { $0 != 0 } }
}
