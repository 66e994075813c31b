import Checkpoint
import Images
import Support
import Tensors
import Testing

@testable import TrainingData

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct PictureTests {
  private func processor(
    _ folder: String, limits: PictureLimits = .init()
  ) throws -> PictureProcessor {
    let folder = Fixtures.path(folder)
    return try PictureProcessor(
      modelFolder: folder, configuration: ModelConfiguration.load(folder: folder), limits: limits)
  }

  @Test func `a model that cuts tiles gets them in order`() throws {
    let processor = try processor("variants/tiles/checkpoint")
    let image = try RGBImage(
      decoding: DataFolder.bytes(Fixtures.path("golden/v12-tiny/image.jpg")))
    #expect(processor.cutsTiles)
    let pixels = try processor.pixels(image)
    let size = processor.imageSize
    let tiles = image.tiles(Tiling(maxTiles: 2, tileSize: size))
    #expect(pixels.shape == [tiles.count, 3, size, size])
    #expect(
      processor.tileCount(width: image.width, height: image.height) == tiles.count)
    for (index, tile) in tiles.enumerated() {
      #expect(pixels[index].hasSameBits(as: tile.normalized(processor.normalization)))
    }
    #expect(try processor.pixels(image, maxTiles: 1).shape[0] == 1)
    #expect(processor.tileCount(width: 2000, height: 100, maxTiles: 6) == 6)
  }

  @Test func `a model that takes pictures whole has one tile of each`() throws {
    let processor = try processor("golden/v12-tiny/checkpoint")
    #expect(!processor.cutsTiles)
    #expect(processor.tileCount(width: 2000, height: 100, maxTiles: 6) == 1)
  }

  @Test(
    arguments: [
      (PictureLimits(minSide: 213, maxSide: 320, maxPixels: 320 * 213), nil),
      (PictureLimits(minSide: 214), .tinyPicture),
      (PictureLimits(maxSide: 319), .hugePicture),
      (PictureLimits(maxPixels: 320 * 213 - 1), .hugePicture),
      (PictureLimits(maxBytes: 1000), .hugePicture),
    ] as [(PictureLimits, SampleFlaw.Kind?)])
  func `a picture outside the limits is flawed`(
    _ limits: PictureLimits, _ kind: SampleFlaw.Kind?
  ) throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    let flaw = try folder.flaw(line(), options: .init(pictureLimits: limits))
    #expect(flaw?.kind == kind)
  }

  @Test func `of many pictures no more than their headers is read`() throws {
    let folder = try DataFolder()
    let file = try folder.write("image.jpg", DataFolder.bytes(Fixtures.path("images/rgb-8.png")))
    // With holes: 25 GB if every one were read.
    #expect(truncate(file, 100 << 20) == 0)
    let names = Array(repeating: #""image.jpg""#, count: 256).joined(separator: ", ")
    let question = String(repeating: "<image>", count: 256)
    let flaw = try folder.flaw(
      line(question, image: "[\(names)]"), options: .init(maxSequenceLength: 512))
    #expect(flaw?.kind == .cutImage)
  }

  @Test func `a header behind a long comment is found`() throws {
    let folder = try DataFolder()
    let picture = try DataFolder.bytes(Fixtures.path("golden/v12-tiny/image.jpg"))
    let comment = [0xFF, 0xFE, 0xFF, 0xFF] + [UInt8](repeating: 0x20, count: 65533)
    let comments = Array(repeating: comment, count: 3).flatMap { $0 }
    try folder.write("image.jpg", picture[..<2] + comments + picture[2...])
    #expect(comments.count > PictureProcessor.headerBytes)
    #expect(try folder.flaw(line()) == nil)
  }

  @Test func `a picture that changes after it was opened is flawed`() throws {
    let folder = try DataFolder()
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    let processor = try processor("golden/v12-tiny/checkpoint")
    let file = try processor.open("image.jpg", in: [folder.path])
    _ = try processor.decode(file)
    try folder.copy("images/rgb-8.png", to: "image.jpg")
    #expect {
      try processor.decode(file)
    } throws: {
      ($0 as? UnplacedFlaw)?.kind == .changedPicture
    }
    #expect(unlink(file.path) == 0)
    #expect {
      try processor.decode(file)
    } throws: {
      ($0 as? UnplacedFlaw)?.kind == .changedPicture
    }
  }

  @Test func `a damaged picture is found wherever it is torn`() throws {
    let folder = try DataFolder()
    let whole = try DataFolder.bytes(Fixtures.path("images/rgb-8.png"))
    for length in stride(from: 1, to: whole.count - 12, by: 37) {
      try folder.write("image.jpg", Array(whole.prefix(length)))
      let kind = try folder.flaw(line())?.kind
      #expect(kind == .tornPicture || kind == .notAPicture && length < 8, "\(length)")
    }
    try folder.write("image.jpg", whole)
    #expect(try folder.flaw(line()) == nil)
  }
}
