import Checkpoint
import Images
import Tensors

/// Which pictures are taken for training.
public struct PictureLimits: Sendable, Equatable {
  /// Shorter sides are flawed: there is nothing to see on such a picture.
  public var minSide: Int
  public var maxSide: Int
  public var maxPixels: Int
  public var maxBytes: Int

  public init(
    minSide: Int = 4, maxSide: Int = 16384, maxPixels: Int = 50_000_000,
    maxBytes: Int = 128 << 20
  ) {
    self.minSide = minSide
    self.maxSide = maxSide
    self.maxPixels = maxPixels
    self.maxBytes = maxBytes
  }
}

/// Turns pictures into the pixels that the vision encoder takes, as a chat does.
public struct PictureProcessor: Sendable {
  /// Pixels on a side of a tile.
  public let imageSize: Int
  public let normalization: Normalization
  public let limits: PictureLimits
  private let padToSquare: Bool
  private let tiling: Tiling?

  /// - Throws: ``CheckpointError`` of the folder's preprocessor_config.json.
  public init(
    modelFolder: String, configuration: ModelConfiguration, limits: PictureLimits = .init()
  ) throws {
    let preprocessor = try PreprocessorConfiguration.load(folder: modelFolder)
    imageSize = configuration.imageSize
    normalization = Normalization(
      mean: SIMD3(preprocessor.imageMean),
      standardDeviation: SIMD3(preprocessor.imageStandardDeviation))
    self.limits = limits
    padToSquare = configuration.padToSquare
    tiling =
      configuration.dynamicImageSize
      ? Tiling(
        minTiles: configuration.minTiles, maxTiles: configuration.maxTiles,
        tileSize: configuration.imageSize, thumbnail: configuration.useThumbnail) : nil
  }

  /// Whether the model cuts pictures into tiles.
  public var cutsTiles: Bool { tiling != nil }

  private func tiling(maxTiles: Int?) -> Tiling? {
    guard var tiling else { return nil }
    if let maxTiles { tiling.maxTiles = max(maxTiles, tiling.minTiles) }
    return tiling
  }

  /// Tiles of a picture of this size.
  public func tileCount(width: Int, height: Int, maxTiles: Int? = nil) -> Int {
    tiling(maxTiles: maxTiles)?.imageCount(width: width, height: height) ?? 1
  }

  /// Whether a picture of this size becomes tiles pixel by pixel, without being resized. (A
  /// thumbnail behind its tiles is.)
  func isOnGrid(width: Int, height: Int, maxTiles: Int?) -> Bool {
    let grid =
      tiling(maxTiles: maxTiles)?.grid(width: width, height: height)
      ?? Tiling.Grid(columns: 1, rows: 1)
    return width == grid.columns * imageSize && height == grid.rows * imageSize
  }

  /// Normalized pixels [tiles, 3, H, W].
  public func pixels(_ image: RGBImage, maxTiles: Int? = nil) throws -> Tensor {
    let count = tileCount(width: image.width, height: image.height, maxTiles: maxTiles)
    let pixels = Tensor(uninitialized: .float32, [count, 3, imageSize, imageSize])
    try write(image, into: pixels, maxTiles: maxTiles)
    return pixels
  }

  /// Writes a picture's tiles into the first rows of `pixels` [tiles, 3, H, W].
  func write(_ image: RGBImage, into pixels: Tensor, maxTiles: Int?) throws {
    let tiles: [RGBImage]
    if let tiling = tiling(maxTiles: maxTiles) {
      tiles = image.tiles(tiling)
    } else if padToSquare {
      tiles = [
        image.paddedToSquare(fill: normalization.padding)
          .resized(width: imageSize, height: imageSize)
      ]
    } else {
      tiles = [image.resized(width: imageSize, height: imageSize)]
    }
    for (index, tile) in tiles.enumerated() {
      try tile.normalized(normalization, into: pixels[index])
    }
  }

  // MARK: Files

  /// A picture's file, its header read and its size checked. Nothing else of it is in memory.
  struct File: Sendable {
    var name: String
    var path: String
    var byteCount: Int
    var width: Int
    var height: Int
  }

  /// Bytes of a file that are read for its header, unless a long preview or colour profile goes
  /// before it.
  static let headerBytes = 1 << 16

  /// Reads the header of a picture's file in the first of some folders that has it.
  ///
  /// - Throws: ``UnplacedFlaw``.
  func open(_ name: String, in roots: [String]) throws -> File {
    for path in roots.map({ DataFile.join($0, name) }) {
      let file: DataFile
      do {
        file = try DataFile(path)
      } catch DataFile.Failure.missing {
        continue
      } catch DataFile.Failure.unreadable(let reason) {
        throw PictureProcessor.unreadable(path, reason)
      }
      let header = try header(of: file)
      try check(header, name)
      return File(
        name: name, path: path, byteCount: file.byteCount, width: header.width,
        height: header.height)
    }
    let places = roots.map { Clip.path(DataFile.join($0, name)) }.joined(separator: ", nor ")
    throw UnplacedFlaw(.missingPicture, "there is no \(places)")
  }

  private func header(of file: DataFile) throws -> ImageHeader {
    try check(bytesOf: file)
    var count = min(PictureProcessor.headerBytes, file.byteCount)
    while true {
      let bytes = try read(file, count: count)
      do {
        return try bytes.withUnsafeBytes { try ImageHeader(of: $0, limits: imageLimits) }
      } catch let error as ImagesError {
        guard count < file.byteCount else {
          throw UnplacedFlaw(
            PictureProcessor.kind(error), "\(Clip.path(file.path)): \(error)")
        }
        count = min(16 * count, file.byteCount)
      }
    }
  }

  private func check(_ header: ImageHeader, _ name: String) throws {
    let size = "\(Clip.path(name)): \(header.width) × \(header.height) pixels"
    guard min(header.width, header.height) >= limits.minSide else {
      throw UnplacedFlaw(.tinyPicture, "\(size), a side has \(limits.minSide) at least")
    }
    guard max(header.width, header.height) <= limits.maxSide,
      header.width * header.height <= limits.maxPixels
    else {
      throw UnplacedFlaw(
        .hugePicture,
        "\(size), at most \(limits.maxSide) on a side and \(limits.maxPixels) in all are taken")
    }
  }

  private func check(bytesOf file: DataFile) throws {
    guard file.byteCount <= limits.maxBytes else {
      throw UnplacedFlaw(
        .hugePicture,
        "\(Clip.path(file.path)) has \(file.byteCount) bytes, at most \(limits.maxBytes) are taken")
    }
  }

  private func read(_ file: DataFile, count: Int) throws -> [UInt8] {
    do {
      return try file.bytes(at: 0, count: count)
    } catch DataFile.Failure.unreadable(let reason) {
      throw PictureProcessor.unreadable(file.path, reason)
    }
  }

  private static func unreadable(_ path: String, _ reason: String) -> UnplacedFlaw {
    UnplacedFlaw(.unreadablePicture, "\(Clip.path(path)): \(reason)")
  }

  /// Reads and decodes a picture.
  ///
  /// - Throws: ``UnplacedFlaw``, also when the file is another than when it was opened.
  func decode(_ file: File) throws -> RGBImage {
    let bytes: [UInt8]
    do {
      let data = try DataFile(file.path)
      try check(bytesOf: data)
      bytes = try read(data, count: data.byteCount)
    } catch DataFile.Failure.missing {
      throw UnplacedFlaw(
        .changedPicture, "\(Clip.path(file.path)) was taken away while it was in use")
    } catch DataFile.Failure.unreadable(let reason) {
      throw PictureProcessor.unreadable(file.path, reason)
    }
    let image: RGBImage
    do {
      image = try RGBImage(decoding: bytes, limits: imageLimits)
    } catch {
      throw UnplacedFlaw(PictureProcessor.kind(error), "\(Clip.path(file.name)): \(error)")
    }
    // The sample's tiles and tokens were counted for the size that it had.
    guard image.width == file.width, image.height == file.height else {
      throw UnplacedFlaw(
        .changedPicture,
        "\(Clip.path(file.path)) has \(image.width) × \(image.height) pixels, and had "
          + "\(file.width) × \(file.height) when it was opened")
    }
    return image
  }

  private var imageLimits: ImageLimits {
    ImageLimits(
      maxPixels: limits.maxPixels, maxSide: limits.maxSide, maxBytes: limits.maxBytes)
  }

  private static func kind(_ error: ImagesError) -> SampleFlaw.Kind {
    switch error {
    case .empty, .malformed, .truncated, .damaged: .tornPicture
    case .unsupportedFormat, .unknownFormat, .unsupportedVariant: .notAPicture
    case .fileTooLong, .sideTooLong, .tooManyPixels, .tooManyScans, .outOfMemory: .hugePicture
    }
  }
}
