/// A weight matrix [N, K] in the order in which kernels read it: panels of sixteen outputs.
///
/// Panel p holds outputs 16p ..< 16p + 16, zeros behind the last. The order is the same on every
/// machine, so that a file may hold panels and a process map them. All numbers are little-endian;
/// b counts blocks of 32 along the depth, j outputs within the panel.
///
/// | format | bytes of a panel |
/// |---|---|
/// | float32 | elements [K][16] |
/// | bfloat16 | pairs [K/2][16][2], of k and k + 1: a word's halves widen by a shift and a mask. An odd K's last has zero beside it |
/// | q8 | values [K/32][8][16][4]: byte (b, g, j, i) is 128 + the weight at k = 32b + 4g + i; scales [K/32][16] float16. w = scale · (byte − 128) |
/// | q4 | values [K/32][4][16][4]: byte (b, g, j, i) has the number at k = 32b + 4g + i in its low half and at k + 16 in its high half; scales [K/32][16] of 16 bits: the upper twelve of a float16, and in the lower four those of the zero; zeros [K/32][8]: byte j has the upper four bits of output j's zero in its low half and of output j + 8's in its high half. w = scale/16 · (16 · number − zero), zeros 0…255 |
///
/// A panel ends with zeros up to a multiple of 64 bytes.
public struct PackedMatrix: Sendable {
  public enum Format: String, Sendable, Hashable, CaseIterable {
    case float32, bfloat16, q8, q4

    /// Values that share a scale; 1 where there are none.
    public var blockLength: Int {
      switch self {
      case .float32, .bfloat16: 1
      case .q8, .q4: 32
      }
    }

    /// Bytes of a panel, or nil where K is no multiple of ``blockLength`` or the panel too large
    /// to be addressed.
    public func panelBytes(depth: Int) -> Int? {
      guard depth >= 0, depth % blockLength == 0 else { return nil }
      let block =
        switch self {
        case .float32: 64
        case .bfloat16: 32
        case .q8: 512 + 32
        case .q4: 256 + 32 + 8
        }
      let (bytes, overflow) = (depth / blockLength).multipliedReportingOverflow(by: block)
      guard !overflow, bytes <= Int.max - 63 else { return nil }
      return (bytes + 63) / 64 * 64
    }
  }

  /// Outputs of a panel.
  public static let panelOutputs = 16

  public let format: Format
  /// N.
  public let outputs: Int
  /// K.
  public let depth: Int
  /// The panels: uint8 [⌈N/16⌉, bytes of a panel].
  public let panels: Tensor

  /// - Throws: ``TensorError`` when the format cannot hold the depth, or `panels` is of another
  ///   shape or type than the matrix has.
  public init(_ format: Format, outputs: Int, depth: Int, panels: Tensor) throws {
    guard outputs >= 0, let bytes = format.panelBytes(depth: depth) else {
      throw TensorError.invalidShape([outputs, depth])
    }
    try panels.require(.uint8, what: "packed weights")
    try panels.require(
      shape: [PackedMatrix.panelCount(outputs), bytes],
      "\(format.rawValue) panels of a weight [\(outputs), \(depth)]")
    self.format = format
    self.outputs = outputs
    self.depth = depth
    self.panels = panels
  }

  public static func panelCount(_ outputs: Int) -> Int {
    outputs / panelOutputs + (outputs % panelOutputs > 0 ? 1 : 0)
  }

  public var panelCount: Int { panels.shape[0] }
  public var panelBytes: Int { panels.shape[1] }
  public var byteCount: Int { panels.byteCount }

  /// Outputs `range` as a view; it begins with a panel's first output.
  public func rows(_ range: Range<Int>) -> PackedMatrix {
    let width = PackedMatrix.panelOutputs
    precondition(
      range.lowerBound % width == 0 && range.upperBound <= outputs
        && (range.upperBound % width == 0 || range.upperBound == outputs),
      "rows \(range) of panels of \(outputs) outputs")
    return PackedMatrix(
      format, range.count, depth,
      panels.rows(range.lowerBound / width..<(range.upperBound + width - 1) / width))
  }

  private init(_ format: Format, _ outputs: Int, _ depth: Int, _ panels: Tensor) {
    self.format = format
    self.outputs = outputs
    self.depth = depth
    self.panels = panels
  }
}

/// The weight of a linear layer or an embedding table, [N, K].
public enum LinearWeight: Sendable {
  /// float32 or bfloat16, row by row: what is trained, and what a checkpoint maps.
  case rows(Tensor)
  /// Packed for kernels.
  case panels(PackedMatrix)

  /// [N, K].
  public var shape: [Int] {
    switch self {
    case .rows(let tensor): tensor.shape
    case .panels(let matrix): [matrix.outputs, matrix.depth]
    }
  }

  public var byteCount: Int {
    switch self {
    case .rows(let tensor): tensor.byteCount
    case .panels(let matrix): matrix.byteCount
    }
  }

  /// What keeps the bytes alive.
  public var storage: Storage {
    switch self {
    case .rows(let tensor): tensor.storage
    case .panels(let matrix): matrix.panels.storage
    }
  }
}
