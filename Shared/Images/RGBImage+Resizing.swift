import CImageCodec

/// Whose bytes a resize gives. Pillow 13 changed the order of the two passes for pictures that
/// shrink mostly in height; since each pass rounds, samples may differ by one or so.
public enum PillowRelease: Sendable, Hashable {
  /// Columns first, always: what models were trained with until October 2026.
  case before13
  /// Rows first when the height shrinks, and by more than twice the pixels that the width does.
  case from13
}

extension RGBImage {
  /// The picture at another size, by Pillow's antialiased bicubic, to the last bit.
  ///
  /// Two passes, over columns and over rows, each with 22-bit fixed-point weights and rounded
  /// to 8 bits; a pass whose size does not change is left out (libImaging/Resample.c).
  public func resized(
    width: Int, height: Int, as release: PillowRelease = .from13
  ) -> RGBImage {
    precondition(width > 0 && height > 0, "resized to \(width) × \(height)")
    if width == self.width && height == self.height { return self }
    let vertical = height == self.height ? nil : ResamplingWeights(from: self.height, to: height)
    guard width != self.width else {
      return vertical.map { resampledRows($0) } ?? self
    }
    let horizontal = ResamplingWeights(from: self.width, to: width)
    guard let vertical else { return resampledColumns(horizontal, rows: 0..<height) }

    let rowsFirst =
      release == .from13 && height < self.height
      && self.height - height > 2 * (self.width - width)
    if rowsFirst {
      return resampledRows(vertical).resampledColumns(horizontal, rows: 0..<height)
    }
    // Rows that the vertical pass does not read need no horizontal one.
    let rows = vertical.inputRange
    return resampledColumns(horizontal, rows: rows)
      .resampledRows(vertical, firstRow: rows.lowerBound)
  }

  private func resampledColumns(_ weights: ResamplingWeights, rows: Range<Int>) -> RGBImage {
    let width = weights.start.count
    let output = [UInt8](unsafeUninitializedCapacity: 3 * width * rows.count) { output, count in
      guard let target = output.baseAddress else { return }
      pixels.withUnsafeBufferPointer { pixels in
        guard let source = pixels.baseAddress else { return }
        for (index, row) in rows.enumerated() {
          chiasm_resample_row(
            source + 3 * row * self.width, weights.start, weights.length, weights.values,
            weights.stride, target + 3 * index * width, width)
        }
      }
      count = 3 * width * rows.count
    }
    return RGBImage(width: width, height: rows.count, pixels: output)
  }

  /// - Parameter firstRow: the row of the full picture that is this one's first.
  private func resampledRows(_ weights: ResamplingWeights, firstRow: Int = 0) -> RGBImage {
    let height = weights.start.count
    let rowBytes = 3 * width
    let output = [UInt8](unsafeUninitializedCapacity: rowBytes * height) { output, count in
      guard let target = output.baseAddress else { return }
      pixels.withUnsafeBufferPointer { pixels in
        weights.values.withUnsafeBufferPointer { values in
          guard let source = pixels.baseAddress, let value = values.baseAddress else { return }
          for row in 0..<height {
            chiasm_resample_column(
              source + rowBytes * (Int(weights.start[row]) - firstRow), rowBytes,
              value + row * weights.stride, Int(weights.length[row]), target + rowBytes * row)
          }
        }
      }
      count = rowBytes * height
    }
    return RGBImage(width: width, height: height, pixels: output)
  }
}

/// Which input pixels make each output pixel of one axis, and by what weight.
struct ResamplingWeights {
  /// The first input pixel of each output pixel, and how many follow.
  let start: [Int32]
  let length: [Int32]
  /// `stride` weights for each output pixel, fixed point of `CHIASM_RESAMPLE_BITS`.
  let values: [Int32]
  let stride: Int

  init(from inputSize: Int, to outputSize: Int) {
    let scale = Double(inputSize) / Double(outputSize)
    let filterScale = max(scale, 1)
    let support = 2 * filterScale
    let inverse = 1 / filterScale
    let stride = Int(support.rounded(.up)) * 2 + 1

    var start: [Int32] = []
    var length: [Int32] = []
    var values = [Int32](repeating: 0, count: outputSize * stride)
    var weights = [Double](repeating: 0, count: stride)
    start.reserveCapacity(outputSize)
    length.reserveCapacity(outputSize)
    for output in 0..<outputSize {
      let center = (Double(output) + 0.5) * scale
      let first = max(Int(center - support + 0.5), 0)
      let last = min(Int(center + support + 0.5), inputSize)
      var sum = 0.0
      for tap in 0..<last - first {
        let weight = Self.bicubic((Double(tap + first) - center + 0.5) * inverse)
        weights[tap] = weight
        sum += weight
      }
      for tap in 0..<last - first {
        let weight = sum == 0 ? weights[tap] : weights[tap] / sum
        let fixed = weight * Double(1 << CHIASM_RESAMPLE_BITS)
        values[output * stride + tap] = Int32(weight < 0 ? fixed - 0.5 : fixed + 0.5)
      }
      start.append(Int32(first))
      length.append(Int32(last - first))
    }
    self.start = start
    self.length = length
    self.values = values
    self.stride = stride
  }

  /// The input pixels that have a weight at all.
  var inputRange: Range<Int> {
    guard let first = start.first, let last = start.last, let count = length.last else {
      return 0..<0
    }
    return Int(first)..<Int(last + count)
  }

  /// Keys' cubic convolution kernel with a = −0.5, in Pillow's order of operations.
  private static func bicubic(_ x: Double) -> Double {
    let a = -0.5
    let x = x.magnitude
    if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
    if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
    return 0
  }
}
