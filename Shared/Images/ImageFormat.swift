/// What a file is, by its first bytes.
public enum ImageFormat: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
  case jpeg = "JPEG"
  case png = "PNG"
  case gif = "GIF"
  case webP = "WebP"
  case bmp = "BMP"
  case tiff = "TIFF"
  case heic = "HEIC"
  case avif = "AVIF"
  case jpeg2000 = "JPEG 2000"
  case jpegXL = "JPEG XL"
  case icon = "ICO"
  case pdf = "PDF"
  case markup = "SVG, HTML or other markup"

  /// The format that `bytes` begin like, or nil.
  public init?(of bytes: UnsafeRawBufferPointer) {
    func begins(_ signature: [UInt8], at offset: Int = 0) -> Bool {
      bytes.count >= offset + signature.count
        && signature.indices.allSatisfy { bytes[offset + $0] == signature[$0] }
    }
    func begins(_ signature: String, at offset: Int = 0) -> Bool {
      begins(Array(signature.utf8), at: offset)
    }

    if begins([0xFF, 0xD8]) {
      self = .jpeg
    } else if begins([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) {
      self = .png
    } else if begins("GIF8") {
      self = .gif
    } else if begins("RIFF") && begins("WEBP", at: 8) {
      self = .webP
    } else if begins("ftyp", at: 4) {
      if begins("avif", at: 8) || begins("avis", at: 8) {
        self = .avif
      } else if ["heic", "heix", "hevc", "hevx", "heim", "heis", "mif1", "msf1"].contains(
        where: { begins($0, at: 8) })
      {
        self = .heic
      } else {
        return nil
      }
    } else if begins([0x49, 0x49, 0x2A, 0x00]) || begins([0x4D, 0x4D, 0x00, 0x2A]) {
      self = .tiff
    } else if begins("jP  \r\n", at: 4) || begins([0xFF, 0x4F, 0xFF, 0x51]) {
      self = .jpeg2000
    } else if begins([0xFF, 0x0A]) || begins("JXL \r\n", at: 4) {
      self = .jpegXL
    } else if begins([0x00, 0x00, 0x01, 0x00]) {
      self = .icon
    } else if begins("%PDF") {
      self = .pdf
    } else if begins("<") || begins([0xEF, 0xBB, 0xBF, 0x3C]) {
      self = .markup
    } else if begins("BM") {
      self = .bmp
    } else {
      return nil
    }
  }

  /// Whether ``RGBImage`` decodes it.
  public var isDecodable: Bool { self == .jpeg || self == .png }

  public var description: String { rawValue }
}
