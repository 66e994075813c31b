import Images
import Support
import Testing

@Suite struct DecodingTests {
  @Test("Every kind of file decodes to Pillow's bytes")
  func pillowBytes() throws {
    let files = try PillowHashes.read().files
    #expect(files.count > 50)
    for (name, expected) in files.sorted(by: { $0.key < $1.key }) {
      let image = try RGBImage(decoding: fixture("images/\(name)"))
      #expect(image.width == expected.width && image.height == expected.height, "\(name)")
      #expect(image.sha256 == expected.sha256, "\(name), which Pillow opens as \(expected.mode)")
    }
  }

  @Test(
    "A header is read without the pixels",
    arguments: [
      ("scene.jpg", ImageFormat.jpeg, 320, 213), ("scene-tall.jpg", .jpeg, 200, 457),
      ("scene-alpha.png", .png, 120, 90), ("grey-16-interlaced.png", .png, 21, 34),
    ])
  func header(name: String, format: ImageFormat, width: Int, height: Int) throws {
    let bytes = try fixture("images/\(name)")
    let header = try bytes.prefix(1200).withUnsafeBytes { try ImageHeader(of: $0) }
    #expect(header.format == format)
    #expect(header.width == width && header.height == height)
  }

  @Test("The orientation that a camera noted is not applied")
  func orientation() throws {
    let image = try RGBImage(decoding: fixture("images/exif-turned.jpg"))
    #expect(image.width == 83 && image.height == 61)
  }

  @Test("Bytes after the picture change nothing", arguments: ["scene.jpg", "scene-alpha.png"])
  func trailing(name: String) throws {
    let bytes = try fixture("images/\(name)")
    let image = try RGBImage(decoding: bytes)
    #expect(try RGBImage(decoding: bytes + [0xFF, 0xD8, 0xFF, 0x00, 1, 2, 3]) == image)
  }

  @Test("Text and profile chunks that unpack to many megabytes are skipped unread")
  func chunkBombs() throws {
    var limits = ImageLimits.default
    limits.maxWorkingBytes = 1 << 20
    let image = try RGBImage(decoding: fixture("images/bombs/chunks.png"), limits: limits)
    #expect(image.width == 2 && image.height == 2)
  }
}

@Suite struct GoldenPictureTests {
  @Test(
    "The reference's pictures decode, resize and normalize to the reference's values",
    arguments: ["v12-tiny", "v12-sharded-bf16"])
  func golden(name: String) throws {
    let expected = try GoldenPicture.read(name).pixels
    let side = expected.shape[3]
    let image = try RGBImage(decoding: fixture("golden/\(name)/image.jpg"))
    #expect(image.sha256 == expected.decoded_sha256)
    let resized = image.resized(width: side, height: side)
    #expect(resized.sha256 == expected.resized_sha256)
    let dump = try NPY.read(Fixtures.path("golden/\(name)/dump/pixels.npy"))
    // Not inside the expectation, which would print every value.
    let same = resized.normalized(.imageNet).bits == dump.bits
    #expect(same, "normalized values")
  }
}
