import Images
import Support
import Testing

@Suite struct HostileImageTests {
  private func failure(
    _ bytes: [UInt8], limits: ImageLimits = .default, truncated: TruncatedPictures = .reject
  ) -> ImagesError? {
    do {
      _ = try RGBImage(decoding: bytes, limits: limits, truncated: truncated)
      return nil
    } catch { return error }
  }

  // MARK: What is no JPEG or PNG

  @Test("No bytes are an error of their own")
  func empty() { #expect(failure([]) == .empty) }

  @Test(
    "Other formats are named",
    arguments: [
      ("GIF89a", ImageFormat.gif), ("RIFF\u{1}\u{2}\u{3}\u{4}WEBPVP8 ", .webP),
      ("BM12345678", .bmp),
      ("\0\0\0\u{18}ftypheic\0\0\0\0", .heic), ("\0\0\0\u{1c}ftypavif\0\0\0\0", .avif),
      ("\0\0\0\u{18}ftypmif1\0\0\0\0", .heic), ("II*\0\0\0\0\0", .tiff), ("MM\0*\0\0\0\0", .tiff),
      ("\0\0\0\u{0C}jP  \r\n", .jpeg2000), ("\0\0\0\u{0C}JXL \r\n", .jpegXL), ("%PDF-1.7", .pdf),
      ("<svg xmlns=", .markup), ("<!DOCTYPE html>", .markup), ("\0\0\u{1}\0\u{1}\0", .icon),
    ])
  func otherFormats(start: String, format: ImageFormat) throws {
    let error = try #require(failure(Array(start.utf8)))
    #expect(error == .unsupportedFormat(format))
    #expect(error.description.contains(format.description))
    #expect(error.description.contains("JPEG or PNG"))
  }

  @Test("Bytes that begin like nothing known are shown")
  func unknown() {
    let bytes: [UInt8] = [0x01, 0xAB, 0, 3, 4, 5, 6, 7, 8, 9]
    #expect(failure(bytes) == .unknownFormat(firstBytes: [0x01, 0xAB, 0, 3, 4, 5, 6, 7]))
    #expect(failure(bytes)?.description.contains("01 ab 00") == true)
    #expect(failure([0xFF]) == .unknownFormat(firstBytes: [0xFF]))
  }

  @Test("Garbage behind a right beginning is malformed or cut short", arguments: 0..<20)
  func garbage(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let garbage = (0..<200).map { _ in UInt8.random(in: 0...255, using: &random) }
    for start in [[0xFF, 0xD8, 0xFF], [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]] as [[UInt8]]
    {
      switch try #require(failure(start + garbage)) {
      case .malformed, .truncated, .unsupportedVariant, .damaged: break
      case let other: Issue.record("\(other)")
      }
    }
  }

  // MARK: Limits

  @Test("A file longer than the limit is refused before it is looked at")
  func longFile() {
    var limits = ImageLimits.default
    limits.maxBytes = 10
    #expect(
      failure(Array(repeating: 0, count: 11), limits: limits) == .fileTooLong(bytes: 11, limit: 10))
  }

  @Test("A JPEG that claims 60,000 × 60,000 pixels is refused by its header")
  func wideJPEG() throws {
    let bytes = try jpeg("scene.jpg", width: 60000, height: 60000)
    #expect(failure(bytes) == .sideTooLong(width: 60000, height: 60000, limit: 32768))
  }

  @Test("A picture of too many pixels is refused by its header")
  func manyPixels() throws {
    #expect(
      failure(try jpeg("scene.jpg", width: 20000, height: 20000))
        == .tooManyPixels(width: 20000, height: 20000, limit: 100_000_000))
    #expect(
      failure(PNGBytes.file(width: 30000, height: 20000))
        == .tooManyPixels(width: 30000, height: 20000, limit: 100_000_000))
  }

  @Test("The limits are the largest sizes that pass")
  func exactLimits() throws {
    let bytes = try fixture("images/scene.jpg")
    #expect(failure(bytes, limits: ImageLimits(maxPixels: 320 * 213, maxSide: 320)) == nil)
    #expect(
      failure(bytes, limits: ImageLimits(maxPixels: 320 * 213 - 1))
        == .tooManyPixels(width: 320, height: 213, limit: 320 * 213 - 1))
    #expect(
      failure(bytes, limits: ImageLimits(maxSide: 319))
        == .sideTooLong(width: 320, height: 213, limit: 319))
    #expect(failure(bytes, limits: ImageLimits(maxBytes: bytes.count)) == nil)
  }

  @Test("A PNG may claim any width without harm", arguments: [0x7FFF_FFFF, 0x4000_0000, 32769])
  func widePNG(width: Int) {
    #expect(
      failure(PNGBytes.file(width: width, height: 1))
        == .sideTooLong(width: width, height: 1, limit: 32768))
  }

  @Test("A PNG of 2³¹ columns or of none is malformed", arguments: [0x8000_0000, 0xFFFF_FFFF, 0])
  func impossiblePNG(width: Int) throws {
    for bytes in [PNGBytes.file(width: width, height: 1), PNGBytes.file(width: 1, height: width)] {
      guard case .malformed(.png, _) = failure(bytes) else {
        Issue.record("\(String(describing: failure(bytes)))")
        continue
      }
    }
  }

  @Test("A JPEG without width or height is malformed", arguments: [(0, 5), (5, 0), (0, 0)])
  func emptyJPEG(width: Int, height: Int) throws {
    let bytes = try jpeg("scene.jpg", width: width, height: height)
    guard case .malformed(.jpeg, _) = failure(bytes) else {
      Issue.record("\(String(describing: failure(bytes)))")
      return
    }
  }

  @Test("A small file that claims a large picture ends at its last byte")
  func claimedPixels() throws {
    let bytes = try jpeg("scene.jpg", width: 9000, height: 9000)
    guard case .damaged(.jpeg, let rows, 9000, _) = failure(bytes) else {
      Issue.record("\(String(describing: failure(bytes)))")
      return
    }
    #expect(rows < 100)
    #expect(
      failure(PNGBytes.file(width: 9000, height: 9000))
        == .truncated(.png, rowsRead: 0, height: 9000)
    )
  }

  @Test("A progressive JPEG whose coefficients take more than the limit is refused")
  func workingMemory() throws {
    let bytes = try fixture("images/scene-tall.jpg")
    var limits = ImageLimits.default
    limits.maxWorkingBytes = 100_000
    #expect(failure(bytes, limits: limits) == .outOfMemory(.jpeg, limit: 100_000))
    limits.maxWorkingBytes = 1 << 20
    #expect(failure(bytes, limits: limits) == nil)
    let png = try fixture("images/scene-alpha.png")
    limits.maxWorkingBytes = 1000
    #expect(failure(png, limits: limits) == .outOfMemory(.png, limit: 1000))
  }

  @Test("A progressive JPEG of too many scans is refused")
  func scans() throws {
    let bytes = try fixture("images/scene-tall.jpg")
    let start = try #require(bytes.firstIndex(ofMarker: 0xDA))
    let end = try #require(bytes[(start + 2)...].firstIndex(ofMarker: nil))
    let scan = Array(bytes[start..<end])
    func repeated(_ count: Int) -> [UInt8] {
      Array(bytes[..<start]) + Array(repeating: scan, count: count).joined() + bytes[end...]
    }
    #expect(failure(repeated(500)) == .tooManyScans(limit: 100))
    // Reading the picture's first scan again changes nothing.
    #expect(try RGBImage(decoding: repeated(20)) == RGBImage(decoding: bytes))
  }

  // MARK: Variants

  @Test("JPEGs of 12 bits, of two components and of other processes are named as such")
  func variants() throws {
    var bytes = try fixture("images/grey.jpg")
    let frame = try #require(bytes.firstIndex(ofMarker: 0xC0))
    var deep = bytes
    deep[frame + 1] = 0xC1
    deep[frame + 4] = 12
    var differential = bytes
    differential[frame + 1] = 0xC5
    bytes[frame + 3] += 3
    bytes[frame + 9] = 2
    bytes.insert(contentsOf: [2, 0x11, 0], at: frame + 13)
    for variant in [deep, differential, bytes] {
      guard case .unsupportedVariant(.jpeg, let detail) = failure(variant) else {
        Issue.record("\(String(describing: failure(variant)))")
        continue
      }
      #expect(!detail.isEmpty)
    }
  }

  // MARK: Half pictures

  @Test(
    "A picture cut short is refused, and the rows that were read are right",
    arguments: ["scene.jpg", "restart.jpg", "arithmetic.jpg", "scene-alpha.png", "rgb-16.png"])
  func cutShort(name: String) throws {
    let bytes = try fixture("images/\(name)")
    let whole = try RGBImage(decoding: bytes)
    let cut = Array(bytes[..<(bytes.count * 2 / 3)])
    guard case .truncated(_, let rows, whole.height) = failure(cut) else {
      Issue.record("\(String(describing: failure(cut)))")
      return
    }
    #expect(rows > 0 && rows < whole.height)
    let filled = try RGBImage(decoding: cut, truncated: .fill)
    #expect(filled.width == whole.width && filled.height == whole.height)
    let known = 3 * rows * whole.width
    #expect(filled.pixels[..<known] == whole.pixels[..<known])
    #expect(filled != whole)
  }

  @Test("What a short PNG lacks is what a zero sample stands for", arguments: [true, false])
  func filledPNG(palette: Bool) throws {
    let bytes = try fixture("images/\(palette ? "palette-8" : "rgb-8").png")
    let whole = try RGBImage(decoding: bytes)
    let filled = try RGBImage(decoding: Array(bytes.dropLast(90)), truncated: .fill)
    let last = Array(filled.pixels.suffix(3))
    guard palette else {
      #expect(last == [0, 0, 0])
      return
    }
    let table = try #require(bytes.firstIndex(of: UInt8(ascii: "P"), before: "PLTE"))
    #expect(last == Array(bytes[table + 4..<table + 7]))
    #expect(filled.pixels.prefix(30) == whole.pixels.prefix(30))
  }

  @Test("A progressive picture cut short has no finished row")
  func cutProgressive() throws {
    let bytes = try fixture("images/scene-tall.jpg")
    let cut = Array(bytes[..<(bytes.count * 2 / 3)])
    #expect(failure(cut) == .truncated(.jpeg, rowsRead: 0, height: 457))
    #expect(failure(cut, truncated: .fill) == nil)
  }

  @Test("A sequential JPEG that lacks only its end marker is whole")
  func noEndMarker() throws {
    let bytes = try fixture("images/scene.jpg")
    #expect(bytes.suffix(2) == [0xFF, 0xD9])
    #expect(try RGBImage(decoding: Array(bytes.dropLast(2))) == RGBImage(decoding: bytes))
  }

  @Test("A header cut short is an error at every length", arguments: ["grey.jpg", "rgb-8.png"])
  func everyPrefix(name: String) throws {
    let bytes = try fixture("images/\(name)")
    for count in 0..<bytes.count - 16 {
      let prefix = Array(bytes[..<count])
      #expect(failure(prefix) != nil, "the first \(count) of \(bytes.count) bytes of \(name)")
    }
  }

  @Test("Damage in the middle is refused, with the rows before it")
  func damaged() throws {
    var jpeg = try fixture("images/restart.jpg")
    let marker = try #require(jpeg.firstIndex(ofMarker: 0xD3))
    jpeg[marker + 1] = 0xD6
    guard case .damaged(.jpeg, _, 61, let detail) = failure(jpeg) else {
      Issue.record("\(String(describing: failure(jpeg)))")
      return
    }
    #expect(!detail.isEmpty)
    #expect(failure(jpeg, truncated: .fill) == nil)

    var png = try fixture("images/scene-alpha.png")
    png[png.count / 2] ^= 0x55
    guard case .damaged(.png, let rows, 90, _) = failure(png) else {
      Issue.record("\(String(describing: failure(png)))")
      return
    }
    #expect(rows > 0 && rows < 90)
    guard case .damaged = failure(png, truncated: .fill) else {
      Issue.record("a damaged PNG was filled")
      return
    }
  }

  // MARK: Anything at all

  @Test("No change of any file crashes or passes the limits", arguments: 0..<8)
  func mutations(seed: UInt64) throws {
    var random = SeededRandom(seed)
    let limits = ImageLimits(maxPixels: 1 << 20, maxWorkingBytes: 8 << 20, maxScans: 20)
    let names = try PillowHashes.read().files.keys.sorted()
    for name in names where !name.hasPrefix("scene") {
      let original = try fixture("images/\(name)")
      for _ in 0..<6 {
        let bytes = mutated(original, &random)
        for truncated in [TruncatedPictures.reject, .fill] {
          do {
            let image = try RGBImage(decoding: bytes, limits: limits, truncated: truncated)
            #expect(image.width * image.height <= limits.maxPixels)
            #expect(image.pixels.count == 3 * image.width * image.height)
          } catch { #expect(!error.description.isEmpty) }
        }
      }
    }
  }

  private func mutated(_ original: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
    var bytes = original
    for _ in 0..<Int.random(in: 1...6, using: &random) {
      let place = Int.random(in: 2..<bytes.count, using: &random)
      switch Int.random(in: 0..<6, using: &random) {
      case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
      case 1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 2: bytes[place] = [0, 0xFF, 0x7F, 0x80].randomElement(using: &random) ?? 0
      case 3: bytes.insert(contentsOf: bytes[place...].prefix(20), at: place)
      case 4: bytes.removeSubrange(place..<min(place + 9, bytes.count))
      default: if place > 40 { bytes.removeSubrange(place...) }
      }
      if bytes.count < 3 { return bytes }
    }
    // Half of the PNGs keep right checksums, so that the change reaches what is behind them.
    return Bool.random(using: &random) ? PNGBytes.withChecksums(bytes) : bytes
  }

  // MARK: Messages

  @Test(
    "An error says what was found and what to do",
    arguments: [
      (ImagesError.empty, "no bytes", "send"),
      (.fileTooLong(bytes: 99, limit: 10), "99", "smaller"),
      (.unsupportedFormat(.webP), "WebP", "convert"),
      (.unknownFormat(firstBytes: [7, 255]), "07 ff", "send"),
      (.unsupportedVariant(.jpeg, detail: "12 bits"), "12 bits", "save"),
      (.malformed(.png, detail: "Invalid IHDR"), "Invalid IHDR", "send"),
      (.sideTooLong(width: 5, height: 70000, limit: 9), "5 × 70000", "scale"),
      (.tooManyPixels(width: 5, height: 7, limit: 9), "5 × 7", "scale"),
      (.tooManyScans(limit: 9), "9 scans", "save"),
      (.outOfMemory(.jpeg, limit: 9), "9 bytes", "scale"),
      (.truncated(.jpeg, rowsRead: 120, height: 480), "120 of 480 rows", "send"),
      (.damaged(.png, rowsRead: 3, height: 4, detail: "CRC error"), "CRC error", "send"),
    ])
  func messages(error: ImagesError, found: String, advice: String) {
    #expect(error.description.contains(found))
    #expect(error.description.contains(advice))
  }
}

// MARK: - Making bad files

/// A fixture whose frame header claims another size.
private func jpeg(_ name: String, width: Int, height: Int) throws -> [UInt8] {
  var bytes = try fixture("images/\(name)")
  let frame = try #require(bytes.firstIndex(ofMarker: 0xC0))
  bytes.replaceSubrange(
    frame + 5..<frame + 9,
    with: [height >> 8, height & 255, width >> 8, width & 255].map(UInt8.init))
  return bytes
}

extension Collection<UInt8> where Index == Int {
  /// Where 0xFF and `marker` stand; nil for any marker but stuffing and restarts.
  fileprivate func firstIndex(ofMarker marker: UInt8?) -> Int? {
    indices.dropLast().first { index in
      let next = self[index + 1]
      return self[index] == 0xFF
        && (marker.map { $0 == next } ?? (next != 0 && !(0xD0...0xD7).contains(next)))
    }
  }

  /// Where `text`, which begins with `byte`, stands.
  fileprivate func firstIndex(of byte: UInt8, before text: String) -> Int? {
    indices.first { self[$0] == byte && self[$0..<endIndex].starts(with: text.utf8) }
  }
}

enum PNGBytes {
  static let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]

  /// A grey picture of this size, of whose pixels there are none.
  static func file(width: Int, height: Int) -> [UInt8] {
    signature + chunk("IHDR", bigEndian(width) + bigEndian(height) + [8, 0, 0, 0, 0])
      + bigEndian(50) + Array("IDAT".utf8)
  }

  static func chunk(_ kind: String, _ data: [UInt8]) -> [UInt8] {
    let body = Array(kind.utf8) + data
    return bigEndian(data.count) + body + bigEndian(Int(checksum(body)))
  }

  /// The same chunks with checksums that fit.
  static func withChecksums(_ bytes: [UInt8]) -> [UInt8] {
    guard bytes.starts(with: signature) else { return bytes }
    var bytes = bytes
    var position = 8
    while position + 12 <= bytes.count {
      let length = bytes[position..<position + 4].reduce(0) { $0 << 8 | Int($1) }
      let end = position + 8 + length
      guard end + 4 <= bytes.count else { break }
      let sum = checksum(Array(bytes[position + 4..<end]))
      bytes.replaceSubrange(end..<end + 4, with: bigEndian(Int(sum)))
      position = end + 4
    }
    return bytes
  }

  private static func bigEndian(_ value: Int) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt32 {
    ~bytes.reduce(~0) { sum, byte in
      (0..<8).reduce(sum ^ UInt32(byte)) { bits, _ in
        bits & 1 == 1 ? bits >> 1 ^ 0xEDB8_8320 : bits >> 1
      }
    }
  }
}
