/// How much one picture may cost.
///
/// The sizes are read from the header and checked before anything that grows with the picture
/// is allocated. Decoding takes 3 bytes a pixel for the result, and ``maxWorkingBytes`` at
/// most beside it.
public struct ImageLimits: Sendable, Hashable {
  /// Width times height.
  public var maxPixels: Int
  /// Width or height.
  public var maxSide: Int
  /// The file.
  public var maxBytes: Int
  /// What the decoder allocates beside the result. A progressive JPEG needs its coefficients,
  /// up to 6 bytes a pixel (8 with four components); all others a few rows.
  public var maxWorkingBytes: Int
  /// Scans of a progressive JPEG, each of which costs a walk over the whole picture.
  /// Encoders make about ten.
  public var maxScans: Int

  public init(
    maxPixels: Int = 100_000_000, maxSide: Int = 32768, maxBytes: Int = 128 << 20,
    maxWorkingBytes: Int = 640 << 20, maxScans: Int = 100
  ) {
    self.maxPixels = maxPixels
    self.maxSide = maxSide
    self.maxBytes = maxBytes
    self.maxWorkingBytes = maxWorkingBytes
    self.maxScans = maxScans
  }

  public static let `default` = ImageLimits()

  func check(width: Int, height: Int) throws(ImagesError) {
    guard width <= maxSide, height <= maxSide else {
      throw .sideTooLong(width: width, height: height, limit: maxSide)
    }
    guard width * height <= maxPixels else {
      throw .tooManyPixels(width: width, height: height, limit: maxPixels)
    }
  }
}
