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

  /// A picture's file, its header read and its size checked.
  struct File: Sendable {
    var name: String
    var bytes: [UInt8]
    var width: Int
    var height: Int
  }

  /// Reads a picture's file from the first of some folders that has it.
  ///
  /// - Throws: ``UnplacedFlaw``.
  func open(_ name: String, in roots: [String]) throws -> File {
    var bytes: [UInt8]?
    for root in roots {
      let path = DataFile.join(root, name)
      do {
        let file = try DataFile(path)
        guard file.byteCount <= limits.maxBytes else {
          throw UnplacedFlaw(
            .hugePicture,
            "\(path) has \(file.byteCount) bytes, at most \(limits.maxBytes) are taken")
        }
        bytes = try file.bytes(at: 0, count: file.byteCount)
      } catch DataFile.Failure.missing {
        continue
      } catch DataFile.Failure.unreadable(let reason) {
        throw UnplacedFlaw(.unreadablePicture, "\(path): \(reason)")
      }
      break
    }
    guard let bytes else {
      let places = roots.map { DataFile.join($0, name) }.joined(separator: ", nor ")
      throw UnplacedFlaw(.missingPicture, "there is no \(places)")
    }
    let header: ImageHeader
    do {
      header = try bytes.withUnsafeBytes { try ImageHeader(of: $0, limits: imageLimits) }
    } catch let error as ImagesError {
      throw UnplacedFlaw(PictureProcessor.kind(error), "\(name): \(error)")
    }
    let size = "\(name): \(header.width) × \(header.height) pixels"
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
    return File(name: name, bytes: bytes, width: header.width, height: header.height)
  }

  /// - Throws: ``UnplacedFlaw``.
  func decode(_ file: File) throws -> RGBImage {
    do {
      return try RGBImage(decoding: file.bytes, limits: imageLimits)
    } catch {
      throw UnplacedFlaw(PictureProcessor.kind(error), "\(file.name): \(error)")
    }
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
