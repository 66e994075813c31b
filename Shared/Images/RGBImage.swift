/// A picture of 8-bit RGB pixels, as Pillow's mode `RGB` has it.
public struct RGBImage: Sendable, Hashable {
  public let width: Int
  public let height: Int
  /// Row-major, interleaved: 3 · width · height bytes.
  public let pixels: [UInt8]

  /// Sides are at least 1; `pixels` holds 3 · width · height bytes.
  public init(width: Int, height: Int, pixels: [UInt8]) {
    precondition(width > 0 && height > 0, "a picture of \(width) × \(height)")
    precondition(
      pixels.count == 3 * width * height,
      "\(pixels.count) bytes for \(width) × \(height) RGB pixels")
    self.width = width
    self.height = height
    self.pixels = pixels
  }

  /// A picture of one colour.
  public init(width: Int, height: Int, filledWith color: RGBColor) {
    precondition(width > 0 && height > 0, "a picture of \(width) × \(height)")
    let pixels = [UInt8](unsafeUninitializedCapacity: 3 * width * height) { bytes, count in
      var index = 0
      while index < 3 * width * height {
        bytes[index] = color.red
        bytes[index + 1] = color.green
        bytes[index + 2] = color.blue
        index += 3
      }
      count = index
    }
    self.init(width: width, height: height, pixels: pixels)
  }

  /// The part of `width` × `height` pixels whose upper left corner is at (`x`, `y`).
  public func cropped(x: Int, y: Int, width: Int, height: Int) -> RGBImage {
    precondition(
      x >= 0 && y >= 0 && x + width <= self.width && y + height <= self.height,
      "\(width) × \(height) at (\(x), \(y)) of \(self.width) × \(self.height)")
    var part: [UInt8] = []
    part.reserveCapacity(3 * width * height)
    for row in y..<y + height {
      let first = 3 * (row * self.width + x)
      part.append(contentsOf: pixels[first..<first + 3 * width])
    }
    return RGBImage(width: width, height: height, pixels: part)
  }

  /// The picture centred on a square of its longer side, with `fill` around it.
  ///
  /// An odd difference leaves the wider margin right or below, as in LLaVA's `expand2square`.
  public func paddedToSquare(fill: RGBColor) -> RGBImage {
    guard width != height else { return self }
    let side = max(width, height)
    let left = (side - width) / 2
    let top = (side - height) / 2
    var square = RGBImage(width: side, height: side, filledWith: fill).pixels
    for row in 0..<height {
      let source = 3 * row * width
      let target = 3 * ((top + row) * side + left)
      square.replaceSubrange(
        target..<target + 3 * width, with: pixels[source..<source + 3 * width])
    }
    return RGBImage(width: side, height: side, pixels: square)
  }
}

/// Three 8-bit samples.
public struct RGBColor: Sendable, Hashable {
  public var red, green, blue: UInt8

  public init(red: UInt8, green: UInt8, blue: UInt8) {
    self.red = red
    self.green = green
    self.blue = blue
  }
}
