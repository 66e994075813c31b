import Tensors

/// The header of a safetensors file: what it holds, and where.
///
/// Format: 8 bytes of little-endian length, that many bytes of JSON (an object that maps names
/// to dtype, shape and data_offsets, and `__metadata__` to strings), then the data, which the
/// tensors tile without overlap or hole (github.com/huggingface/safetensors).
struct SafetensorsHeader: Sendable {
  struct Entry: Sendable, Equatable {
    var scalarType: String
    var shape: [Int]
    /// Where the tensor lies in the data, in bytes.
    var begin: Int
    var end: Int
  }

  /// The format's own cap.
  static let maximumLength = 100_000_000
  static let maximumRank = 16

  var entries: [String: Entry] = [:]
  var metadata: [String: String] = [:]
  /// What the tensors are that hold panels.
  var panels: [String: PanelLayout] = [:]
  /// Where the data begins in the file.
  var dataOffset = 0

  /// Reads and checks the header of `file`.
  ///
  /// - Throws: ``CheckpointError``, a case for every way in which it may lie.
  init(reading file: borrowing OpenFile) throws {
    guard file.byteCount >= 8 else {
      throw CheckpointError.truncatedHeader(
        file: file.path, headerLength: 0, byteCount: file.byteCount)
    }
    let length = try file.bytes(at: 0, count: 8).reversed().reduce(UInt64(0)) {
      $0 << 8 | UInt64($1)
    }
    guard length <= UInt64(SafetensorsHeader.maximumLength) else {
      throw CheckpointError.headerTooLong(
        file: file.path, headerLength: length, limit: SafetensorsHeader.maximumLength)
    }
    guard Int(length) <= file.byteCount - 8 else {
      throw CheckpointError.truncatedHeader(
        file: file.path, headerLength: length, byteCount: file.byteCount)
    }
    let text = try file.bytes(at: 8, count: Int(length))
    try self.init(text, dataByteCount: file.byteCount - 8 - Int(length), file: file.path)
  }

  /// - Parameters:
  ///   - text: the JSON.
  ///   - dataByteCount: how much follows it.
  ///   - file: what errors name.
  init(_ text: [UInt8], dataByteCount: Int, file: String) throws {
    dataOffset = 8 + text.count
    try text.withUnsafeBytes { bytes in
      var scanner = JSONScanner(bytes, file: file)
      guard bytes.first == UInt8(ascii: "{") else { throw scanner.failure("expected '{'") }
      try scanner.object { scanner, name in
        if name == "__metadata__" {
          try scanner.object { metadata[$1] = try $0.string() }
        } else {
          entries[name] = try SafetensorsHeader.entry(name, &scanner, file)
        }
      }
      try scanner.expectEnd()
    }
    try requireTiling(dataByteCount, file)
    panels = try panelLayouts(file)
  }

  /// The layouts that the metadata tell, of tensors that have the size they ask for.
  private func panelLayouts(_ file: String) throws -> [String: PanelLayout] {
    var layouts: [String: PanelLayout] = [:]
    let prefix = PanelLayout.metadataPrefix
    for (key, text) in metadata.sorted(by: { $0.key < $1.key }) where key.hasPrefix(prefix) {
      let name = String(key.dropFirst(prefix.count))
      guard let layout = PanelLayout(parsing: text) else {
        throw CheckpointError.invalidPanels(file: file, tensor: name, found: text)
      }
      guard let entry = entries[name] else {
        throw CheckpointError.missingPanels(file: file, tensor: name, layout: text)
      }
      guard entry.scalarType == "U8", entry.shape == layout.tensorShape else {
        throw CheckpointError.panelMismatch(
          file: file, tensor: name, layout: text,
          expected: "U8 \(layout.tensorShape)", found: "\(entry.scalarType) \(entry.shape)")
      }
      layouts[name] = layout
    }
    return layouts
  }

  /// Bits of one element, by dtype name.
  private static let bitCounts: [String: Int] = [
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8,
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32,
    "I32": 32, "F32": 32, "C64": 64, "U64": 64, "I64": 64, "F64": 64,
  ]

  private static func entry(
    _ name: String, _ scanner: inout JSONScanner, _ file: String
  ) throws -> Entry {
    var scalarType: String?
    var shape: [Int]?
    var offsets: [Int]?
    func integers(_ scanner: inout JSONScanner, limit: Int) throws -> [Int] {
      var values: [Int] = []
      try scanner.array { scanner in
        guard values.count < limit else { throw scanner.failure("more than \(limit) elements") }
        values.append(try scanner.integer())
      }
      return values
    }
    try scanner.object { scanner, field in
      switch field {
      case "dtype": scalarType = try scanner.string()
      case "shape": shape = try integers(&scanner, limit: maximumRank)
      case "data_offsets": offsets = try integers(&scanner, limit: 2)
      // The reference's reader ignores other fields too.
      default: try scanner.skipValue()
      }
    }
    func missing(_ field: String) -> CheckpointError {
      .missingField(file: file, tensor: name, field: field)
    }
    guard let scalarType else { throw missing("dtype") }
    guard let shape else { throw missing("shape") }
    guard let offsets, offsets.count == 2 else { throw missing("pair of data_offsets") }
    let (begin, end) = (offsets[0], offsets[1])

    guard let bits = bitCounts[scalarType] else {
      throw CheckpointError.unknownScalarType(file: file, tensor: name, found: scalarType)
    }
    guard isMeasurable(shape, elementSize: bits) else {
      throw CheckpointError.invalidShape(file: file, tensor: name, shape: shape)
    }
    let bitCount = shape.reduce(bits, *)
    guard bitCount.isMultiple(of: 8) else {
      throw CheckpointError.invalidShape(file: file, tensor: name, shape: shape)
    }
    guard begin >= 0, begin <= end else {
      throw CheckpointError.reversedOffsets(file: file, tensor: name, begin: begin, end: end)
    }
    guard end - begin == bitCount / 8 else {
      throw CheckpointError.byteCountMismatch(
        file: file, tensor: name, expected: bitCount / 8, found: end - begin)
    }
    return Entry(scalarType: scalarType, shape: shape, begin: begin, end: end)
  }

  private func requireTiling(_ dataByteCount: Int, _ file: String) throws {
    let sorted = entries.sorted { first, second in
      (first.value.begin, first.value.end, first.key)
        < (second.value.begin, second.value.end, second.key)
    }
    var previousEnd = 0
    for (name, entry) in sorted {
      guard entry.end <= dataByteCount else {
        throw CheckpointError.offsetsBeyondData(
          file: file, tensor: name, end: entry.end, dataByteCount: dataByteCount)
      }
      guard entry.begin >= previousEnd else {
        throw CheckpointError.overlappingOffsets(
          file: file, tensor: name, begin: entry.begin, previousEnd: previousEnd)
      }
      guard entry.begin == previousEnd else {
        throw CheckpointError.hole(
          file: file, tensor: name, begin: entry.begin, previousEnd: previousEnd)
      }
      previousEnd = entry.end
    }
    guard previousEnd == dataByteCount else {
      throw CheckpointError.trailingData(
        file: file, end: previousEnd, dataByteCount: dataByteCount)
    }
  }
}

extension ScalarType {
  /// The name in a safetensors header.
  var safetensorsName: String {
    switch self {
    case .float32: "F32"
    case .bfloat16: "BF16"
    case .int64: "I64"
    case .int32: "I32"
    case .uint8: "U8"
    }
  }

  init?(safetensorsName name: String) {
    guard let type = ScalarType.allCases.first(where: { $0.safetensorsName == name }) else {
      return nil
    }
    self = type
  }
}
