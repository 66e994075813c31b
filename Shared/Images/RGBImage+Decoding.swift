import CImageCodec

/// What becomes of a picture whose file ends early.
public enum TruncatedPictures: Sendable, Hashable {
  /// ``ImagesError/truncated(_:rowsRead:height:)``: nobody gets an answer about half a picture.
  case reject
  /// The rest is filled, as the reference's training does with Pillow's
  /// `LOAD_TRUNCATED_IMAGES`: zero samples in a PNG, what libjpeg makes of missing coefficients
  /// in a JPEG. A JPEG damaged in the middle is taken too.
  ///
  /// The bytes are Pillow's for PNG and for JPEG of one Huffman-coded scan; what Pillow gives
  /// for the head of a progressive or arithmetic-coded one depends on how it reads the file.
  case fill
}

extension RGBImage {
  /// Decodes a JPEG or PNG file to the bytes that Pillow's `Image.open(…).convert("RGB")` gives.
  ///
  /// Grey is replicated, a palette expanded, alpha and transparency dropped without
  /// compositing; gamma, colour profiles and the EXIF orientation are ignored. 16-bit samples
  /// keep their high byte, except plain grey, where Pillow clips (every value above 255 is
  /// white). A JPEG of four components is taken for inverted CMYK.
  /// - Throws: ``ImagesError``.
  public init(
    decoding bytes: UnsafeRawBufferPointer, limits: ImageLimits = .default,
    truncated: TruncatedPictures = .reject
  ) throws(ImagesError) {
    let header = try ImageHeader(of: bytes, limits: limits)
    try limits.check(width: header.width, height: header.height)

    let decode = header.format == .jpeg ? chiasm_jpeg_decode : chiasm_png_decode
    var options = chiasm_image_options(
      max_memory: limits.maxWorkingBytes, max_scans: UInt32(clamping: limits.maxScans),
      fill_truncated: truncated == .fill ? 1 : 0)
    var report = chiasm_image_report()
    var status = CHIASM_IMAGE_OK
    let capacity = 3 * header.width * header.height
    let pixels = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
      status = decode(
        bytes.baseAddress, bytes.count, &options, buffer.baseAddress, capacity, &report)
      count = status == CHIASM_IMAGE_OK ? capacity : 0
    }
    if let error = ImagesError(status, report, header.format, limits) { throw error }
    self.init(width: header.width, height: header.height, pixels: pixels)
  }

  /// Decodes a JPEG or PNG file; see the initializer above.
  public init(
    decoding bytes: [UInt8], limits: ImageLimits = .default,
    truncated: TruncatedPictures = .reject
  ) throws(ImagesError) {
    self = try bytes.withUnsafeBufferPointer { buffer throws(ImagesError) in
      try RGBImage(
        decoding: UnsafeRawBufferPointer(buffer), limits: limits, truncated: truncated)
    }
  }
}

/// What a picture's header says; reading it costs next to nothing.
public struct ImageHeader: Sendable, Hashable {
  public let format: ImageFormat
  public let width: Int
  public let height: Int

  /// Reads the header of a JPEG or PNG file. Of `limits` only ``ImageLimits/maxBytes`` counts.
  ///
  /// - Throws: ``ImagesError``.
  public init(
    of bytes: UnsafeRawBufferPointer, limits: ImageLimits = .default
  ) throws(ImagesError) {
    guard !bytes.isEmpty else { throw .empty }
    guard bytes.count <= limits.maxBytes else {
      throw .fileTooLong(bytes: bytes.count, limit: limits.maxBytes)
    }
    guard let format = ImageFormat(of: bytes) else {
      throw .unknownFormat(firstBytes: Array(bytes.prefix(8)))
    }
    guard format.isDecodable else { throw .unsupportedFormat(format) }

    let read = format == .jpeg ? chiasm_jpeg_header : chiasm_png_header
    var report = chiasm_image_report()
    let status = read(bytes.baseAddress, bytes.count, &report)
    if let error = ImagesError(status, report, format, limits) { throw error }
    self.format = format
    self.width = Int(report.width)
    self.height = Int(report.height)
  }
}

extension ImagesError {
  /// The error that a decoder's status stands for, nil for success.
  fileprivate init?(
    _ status: chiasm_image_status, _ report: chiasm_image_report, _ format: ImageFormat,
    _ limits: ImageLimits
  ) {
    let detail = withUnsafeBytes(of: report.message) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    switch status {
    case CHIASM_IMAGE_OK: return nil
    case CHIASM_IMAGE_UNSUPPORTED: self = .unsupportedVariant(format, detail: detail)
    case CHIASM_IMAGE_TOO_MANY_SCANS: self = .tooManyScans(limit: limits.maxScans)
    case CHIASM_IMAGE_OUT_OF_MEMORY:
      self = .outOfMemory(format, limit: limits.maxWorkingBytes)
    case CHIASM_IMAGE_TRUNCATED where report.height > 0:
      self = .truncated(
        format, rowsRead: Int(report.rows_read), height: Int(report.height))
    case CHIASM_IMAGE_DAMAGED:
      self = .damaged(
        format, rowsRead: Int(report.rows_read), height: Int(report.height), detail: detail)
    default:
      self = .malformed(format, detail: detail)
    }
  }
}
