import Tensors

/// The panels of one random quantised weight, each byte computed from its place alone: nothing is
/// quantised, so that a model of any size is written as fast as the disk takes it.
///
/// Numbers are uniform over what a block can hold, with a standard deviation of 0.02 for the
/// weights: the deviation that the weights of ``RandomValues`` have.
struct RandomPanels: Sendable {
  let layout: PanelLayout
  private let key: UInt64
  /// float16 bits.
  private let scale: UInt16

  /// - Parameter layout: of format q8 or q4.
  init(name: String, seed: UInt64, layout: PanelLayout) {
    precondition(layout.format == .q8 || layout.format == .q4)
    self.layout = layout
    key = RandomValues.key(name: name, seed: seed)
    // Root mean squares of the numbers: 1 ... 255 less 128, and 0 ... 15 less 7.5.
    let deviation: Float = layout.format == .q8 ? 73.6 : 4.61
    scale = Float16(0.02 / deviation).bitPattern
  }

  /// Fills uint8 [panels, bytes of a panel] with the panels from `first` on.
  func fill(_ panels: Tensor, from first: Int) {
    panels.withWords { words in
      let count = layout.panelBytes / 8
      for panel in 0..<panels.shape[0] {
        fill(
          UnsafeMutableBufferPointer(rebasing: words[panel * count..<(panel + 1) * count]),
          panel: first + panel)
      }
    }
  }

  private func fill(_ words: UnsafeMutableBufferPointer<UInt64>, panel: Int) {
    let blocks = layout.depth / layout.format.blockLength
    let (valueWords, zeroWords) = layout.format == .q8 ? (64, 0) : (32, 1)
    let start = UInt64(panel) &* UInt64(words.count)
    for index in 0..<blocks * valueWords {
      let bits = random(start &+ UInt64(index))
      words[index] = layout.format == .q8 ? RandomPanels.withoutZeros(bits) : bits
    }
    let scales = blocks * valueWords
    for index in scales..<scales + blocks * 4 {
      words[index] = scaleWord(random(start &+ UInt64(index)))
    }
    // 120 sixteenths, so that the weights have no mean: here the upper half of each.
    let zeros = scales + blocks * 4
    for index in zeros..<zeros + blocks * zeroWords { words[index] = 0x7777_7777_7777_7777 }
    for index in zeros + blocks * zeroWords..<words.count { words[index] = 0 }
    clearPadding(UnsafeMutableRawBufferPointer(words), panel: panel, blocks: blocks)
  }

  /// Four scales that differ by a few hundredths.
  private func scaleWord(_ bits: UInt64) -> UInt64 {
    let each: UInt64 = 0x0001_0001_0001_0001
    if layout.format == .q8 { return UInt64(scale &- 32) &* each &+ (bits & (0x3F &* each)) }
    // Twelve bits, of which the last differs by one at most, and the lower half of the zero.
    let base = UInt64(((scale &+ 8) & 0xFFF0) &- 0x10 | 8) &* each
    return base &+ (bits & (0x10 &* each)) &+ (bits >> 8 & (0x10 &* each))
  }

  /// The byte 0 would be the weight −128, which the format does not have.
  @inline(__always)
  private static func withoutZeros(_ bits: UInt64) -> UInt64 {
    let low: UInt64 = 0x7F7F_7F7F_7F7F_7F7F
    // The high bit of every byte that is 0.
    return bits | ~(((bits & low) &+ low) | bits | low)
  }

  /// Outputs behind the last are zeros.
  private func clearPadding(
    _ bytes: UnsafeMutableRawBufferPointer, panel: Int, blocks: Int
  ) {
    let width = PackedMatrix.panelOutputs
    let outputs = min(width, layout.outputs - panel * width)
    guard outputs < width else { return }
    let groups = layout.format == .q8 ? 8 : 4
    for group in 0..<blocks * groups {
      for j in outputs..<width {
        for i in 0..<4 { bytes[group * 64 + j * 4 + i] = 0 }
      }
    }
    let scales = blocks * groups * 64
    for block in 0..<blocks {
      for j in outputs..<width {
        bytes[scales + block * 32 + 2 * j] = 0
        bytes[scales + block * 32 + 2 * j + 1] = 0
      }
    }
    guard layout.format == .q4 else { return }
    let zeros = scales + blocks * 32
    for block in 0..<blocks {
      for j in outputs..<width { bytes[zeros + block * 8 + j % 8] &= j < 8 ? 0xF0 : 0x0F }
    }
  }

  @inline(__always)
  private func random(_ index: UInt64) -> UInt64 {
    RandomValues.mix(key &+ index &* 0x9E37_79B9_7F4A_7C15)
  }
}

extension Tensor {
  /// The bytes of a uint8 tensor as words, where they are so many.
  fileprivate func withWords(_ body: (UnsafeMutableBufferPointer<UInt64>) -> Void) {
    precondition(scalarType == .uint8 && byteCount.isMultiple(of: 8))
    withExtendedLifetime(storage) {
      body(
        UnsafeMutableBufferPointer(
          start: baseAddress.assumingMemoryBound(to: UInt64.self), count: byteCount / 8))
    }
  }
}
