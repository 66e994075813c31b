/// Ways in which bytes do not become a picture.
public enum ImagesError: Error, Hashable, CustomStringConvertible {
  /// There are no bytes.
  case empty
  /// The file is longer than ``ImageLimits/maxBytes``.
  case fileTooLong(bytes: Int, limit: Int)
  /// A format that is known but not decoded.
  case unsupportedFormat(ImageFormat)
  /// Neither JPEG nor PNG nor anything else known, with the first bytes.
  case unknownFormat(firstBytes: [UInt8])
  /// JPEG or PNG, but a variant that is not decoded.
  case unsupportedVariant(ImageFormat, detail: String)
  /// Begins like the format, but has no usable header.
  case malformed(ImageFormat, detail: String)
  /// More than ``ImageLimits/maxSide``.
  case sideTooLong(width: Int, height: Int, limit: Int)
  /// More than ``ImageLimits/maxPixels``.
  case tooManyPixels(width: Int, height: Int, limit: Int)
  /// More than ``ImageLimits/maxScans``.
  case tooManyScans(limit: Int)
  /// More than ``ImageLimits/maxWorkingBytes``, or than the machine has.
  case outOfMemory(ImageFormat, limit: Int)
  /// The file ends before the picture does. Rows of a progressive picture count when its last
  /// scan has refined them.
  case truncated(ImageFormat, rowsRead: Int, height: Int)
  /// The pixel data are wrong in the middle.
  case damaged(ImageFormat, rowsRead: Int, height: Int, detail: String)

  public var description: String {
    switch self {
    case .empty:
      "the picture has no bytes; send a JPEG or PNG file"
    case .fileTooLong(let bytes, let limit):
      "the picture has \(bytes) bytes, and at most \(limit) are taken; send a smaller one"
    case .unsupportedFormat(let format):
      "the picture is \(format); convert it to JPEG or PNG"
    case .unknownFormat(let firstBytes):
      "the bytes are no picture (they begin with \(hexadecimal(firstBytes))); "
        + "send a JPEG or PNG file"
    case .unsupportedVariant(let format, let detail):
      "this variant of \(format) is not decoded (\(detail)); "
        + "save the picture as a baseline or progressive JPEG of 8 bits, or as PNG"
    case .malformed(let format, let detail):
      "the bytes begin like \(format) but have no usable header (\(detail)); "
        + "send the whole file, unaltered"
    case .sideTooLong(let width, let height, let limit):
      "the picture is \(width) × \(height) pixels, and a side may have \(limit); "
        + "scale it down"
    case .tooManyPixels(let width, let height, let limit):
      "the picture is \(width) × \(height) pixels, and \(limit) are taken in all; scale it down"
    case .tooManyScans(let limit):
      "the progressive JPEG has more than \(limit) scans; save it anew"
    case .outOfMemory(let format, let limit):
      "decoding this \(format) takes more than \(limit) bytes beside the picture; "
        + "scale it down, or save it as a baseline JPEG"
    case .truncated(let format, let rowsRead, let height):
      "the \(format) ends early: \(rowsRead) of \(height) rows were read; send the whole file"
    case .damaged(let format, let rowsRead, let height, let detail):
      "the \(format) is damaged after \(rowsRead) of \(height) rows (\(detail)); "
        + "send it again, or save it anew"
    }
  }
}

private func hexadecimal(_ bytes: [UInt8]) -> String {
  bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
}
