import Tensors

/// What a weight is whose panels a safetensors file holds (``PackedMatrix``): their format, and
/// the weight's own shape.
///
/// The tensor in the file is U8 [⌈N/16⌉, bytes of a panel], under the weight's name; the string
/// `panels:` + that name under `__metadata__` says what its bytes are, such as
/// `q4 [20480, 7168]`. Format and rows of panels alone would not tell N.
public struct PanelLayout: Sendable, Hashable, CustomStringConvertible {
  public let format: PackedMatrix.Format
  /// N.
  public let outputs: Int
  /// K.
  public let depth: Int
  /// Of one panel.
  public let panelBytes: Int

  /// - Returns: nil when the format cannot hold the depth, or nothing can address the panels.
  public init?(_ format: PackedMatrix.Format, outputs: Int, depth: Int) {
    guard outputs >= 0, let panelBytes = format.panelBytes(depth: depth),
      isMeasurable([PackedMatrix.panelCount(outputs), panelBytes], elementSize: 8),
      isMeasurable([outputs, depth], elementSize: 32)
    else { return nil }
    self.format = format
    self.outputs = outputs
    self.depth = depth
    self.panelBytes = panelBytes
  }

  /// The shape of the tensor in the file.
  public var tensorShape: [Int] { [PackedMatrix.panelCount(outputs), panelBytes] }

  /// The weight's shape.
  public var shape: [Int] { [outputs, depth] }

  /// As the file's metadata have it.
  public var description: String { "\(format.rawValue) [\(outputs), \(depth)]" }

  /// What a name begins with under which the metadata have a layout.
  static let metadataPrefix = "panels:"

  /// Panels lie at multiples of this in a file, and so in memory where it is mapped.
  static let alignment = Storage.alignment

  /// - Parameter text: as ``description`` writes it, to the letter.
  init?(parsing text: String) {
    let parts = text.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 3, let format = PackedMatrix.Format(rawValue: String(parts[0])),
      parts[1].hasPrefix("["), parts[1].hasSuffix(","), parts[2].hasSuffix("]"),
      let outputs = Int(parts[1].dropFirst().dropLast()), let depth = Int(parts[2].dropLast())
    else { return nil }
    self.init(format, outputs: outputs, depth: depth)
    guard description == text else { return nil }
  }
}
