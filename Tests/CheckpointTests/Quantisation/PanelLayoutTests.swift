import Tensors
import Testing

@testable import Checkpoint

@Suite struct PanelLayoutTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  @Test(arguments: PackedMatrix.Format.allCases)
  func `a layout is read as it is written`(format: PackedMatrix.Format) throws {
    for (outputs, depth) in [(0, 0), (0, 32), (1, 32), (16, 64), (17, 96), (64_007, 7168)] {
      let layout = try #require(PanelLayout(format, outputs: outputs, depth: depth))
      #expect(PanelLayout(parsing: "\(layout)") == layout)
      #expect(layout.shape == [outputs, depth])
      #expect(layout.tensorShape == [(outputs + 15) / 16, layout.panelBytes])
    }
    #expect(PanelLayout(format, outputs: 1, depth: 32)?.description == "\(format) [1, 32]")
  }

  static let bad = [
    "", "q4", "q5 [16, 32]", "Q4 [16, 32]", "q4 [16,32]", "q4 [16, 32] ", " q4 [16, 32]",
    "q4 [16, 33]", "q8 [16, 31]", "q4 [-16, 32]", "q4 [16, -32]", "q4 [+16, 32]", "q4 [016, 32]",
    "q4 [16, 32, 1]", "q4 [16, 3e1]", "q4 [16 32]", "q4 16, 32", "q4 [99999999999999999999, 32]",
    "q4 [9223372036854775807, 32]", "q8 [16, 9223372036854775776]",
    "float32 [9223372036854775807, 9223372036854775807]", "q4 [4611686018427387904, 64]",
  ]

  @Test(arguments: bad)
  func `anything else is no layout`(text: String) {
    #expect(PanelLayout(parsing: text) == nil)
  }

  // MARK: Files

  private func file(
    metadata: String, dtype: String = "U8", shape: String = "[1,576]", bytes: Int = 576
  ) throws -> String {
    let header =
      #"{"__metadata__":{\#(metadata)},"w":{"dtype":"\#(dtype)","shape":\#(shape),"#
      + #""data_offsets":[0,\#(bytes)]}}"#
    let padded = header + String(repeating: " ", count: 63 - (header.utf8.count + 7) % 64)
    return try folder.write(
      "model.safetensors", safetensors(padded, data: (0..<bytes).map { UInt8($0 % 251) }))
  }

  @Test func `a weight of panels is mapped as it lies in the file`() throws {
    let path = try file(metadata: #""panels:w":"q8 [5, 32]""#)
    #expect(
      try SafetensorsFile(path: path).panelLayout("w")
        == PanelLayout(.q8, outputs: 5, depth: 32))
    let reader = try CheckpointReader(folder: folder.path)
    guard
      case .panels(let matrix) = try reader.matrix(Weight("w", [5, 32]), neededFor: "test")
    else {
      Issue.record("no panels")
      return
    }
    #expect(matrix.format == .q8 && matrix.outputs == 5 && matrix.depth == 32)
    #expect(UInt(bitPattern: matrix.panels.baseAddress) % 64 == 0)
    #expect(
      matrix.panels.withElements(of: UInt8.self) { Array($0) } == (0..<576).map { UInt8($0 % 251) })
    // One mapping for all of the file, not a copy.
    #expect(matrix.panels.storage.byteCount > 576)
  }

  @Test func `panels at another place are copied to one that kernels can read`() throws {
    let header =
      #"{"__metadata__":{"panels:w":"q8 [5, 32]"},"w":{"dtype":"U8","shape":[1,576],"#
      + #""data_offsets":[0,576]}}"#
    let aligned = header + String(repeating: " ", count: 63 - (header.utf8.count + 7) % 64)
    for shift in [1, 8, 32] {
      try folder.write(
        "model.safetensors",
        safetensors(
          aligned + String(repeating: " ", count: shift),
          data: (0..<576).map { UInt8($0 % 251) }))
      let weight = try CheckpointReader(folder: folder.path)
        .matrix(Weight("w", [5, 32]), neededFor: "test")
      #expect(UInt(bitPattern: weight.storage.base) % 64 == 0 && weight.byteCount == 576)
      guard case .panels(let matrix) = weight else { continue }
      #expect(matrix.panels.byteOffset == 0)
      #expect(matrix.panels.withElements(of: UInt8.self) { $0[250] } == 250)
    }
  }

  @Test func `a weight of floats is rows`() throws {
    try SafetensorsWriter.write(
      [("w", Tensor([1, 2, 3, 4, 5, 6], [2, 3]))], to: "\(folder.path)/model.safetensors")
    let reader = try CheckpointReader(folder: folder.path)
    guard case .rows(let rows) = try reader.matrix(Weight("w", [2, 3]), neededFor: "test") else {
      Issue.record("no rows")
      return
    }
    #expect(rows.floats == [1, 2, 3, 4, 5, 6])
    #expect(throws: CheckpointError.self) {
      try reader.matrix(Weight("w", [3, 2]), neededFor: "test")
    }
    #expect(throws: CheckpointError.self) {
      try reader.matrix(Weight("x", [2, 3]), neededFor: "test")
    }
    #expect(try reader.panelLayout("w") == nil)
  }

  @Test(arguments: bad)
  func `a header that tells of an impossible layout is refused`(text: String) throws {
    let path = try file(metadata: #""panels:w":"\#(text)""#)
    #expect(throws: CheckpointError.invalidPanels(file: path, tensor: "w", found: text)) {
      try SafetensorsFile(path: path)
    }
  }

  @Test func `a header that tells of panels the file lacks is refused`() throws {
    let path = try file(metadata: #""panels:w":"q8 [5, 32]","panels:v":"q8 [5, 32]""#)
    #expect(
      throws: CheckpointError.missingPanels(file: path, tensor: "v", layout: "q8 [5, 32]")
    ) { try SafetensorsFile(path: path) }
  }

  @Test(arguments: [
    ("q8 [17, 32]", "U8", "[1,576]", "U8 [2, 576]"),
    ("q8 [5, 64]", "U8", "[1,576]", "U8 [1, 1088]"),
    ("q4 [5, 32]", "U8", "[1,576]", "U8 [1, 320]"),
    ("q8 [0, 32]", "U8", "[1,576]", "U8 [0, 576]"),
    ("q8 [5, 32]", "U8", "[576]", "U8 [1, 576]"),
    ("q8 [5, 32]", "U8", "[1,24,24]", "U8 [1, 576]"),
    ("q8 [5, 32]", "I8", "[1,576]", "U8 [1, 576]"),
    ("q8 [5, 32]", "BF16", "[1,288]", "U8 [1, 576]"),
  ])
  func `panels of another size or type than their layout are refused`(
    text: String, dtype: String, shape: String, expected: String
  ) throws {
    let path = try file(metadata: #""panels:w":"\#(text)""#, dtype: dtype, shape: shape)
    let found = "\(dtype) \(shape.replacing(",", with: ", "))"
    #expect(
      throws: CheckpointError.panelMismatch(
        file: path, tensor: "w", layout: text, expected: expected, found: found)
    ) { try SafetensorsFile(path: path) }
  }

  @Test func `panels that overlap another tensor are refused`() throws {
    let header =
      #"{"__metadata__":{"panels:w":"q8 [5, 32]"},"w":{"dtype":"U8","shape":[1,576],"#
      + #""data_offsets":[0,576]},"x":{"dtype":"U8","shape":[64],"data_offsets":[512,576]}}"#
    let path = try folder.write(
      "f", safetensors(header, data: [UInt8](repeating: 0, count: 576)))
    #expect(
      throws: CheckpointError.overlappingOffsets(
        file: path, tensor: "x", begin: 512, previousEnd: 576)
    ) { try SafetensorsFile(path: path) }
  }

  @Test func `who asks for another shape is told the weight's own`() throws {
    let path = try file(metadata: #""panels:w":"q8 [5, 32]""#)
    let reader = try CheckpointReader(folder: folder.path)
    #expect(
      throws: CheckpointError.shapeMismatch(
        file: path, tensor: "w", expected: [6, 32], found: [5, 32], neededFor: "test")
    ) { try reader.matrix(Weight("w", [6, 32]), neededFor: "test") }
  }

  @Test func `who needs floats is told that there are none`() throws {
    let path = try file(metadata: #""panels:w":"q8 [5, 32]""#)
    let reader = try CheckpointReader(folder: folder.path)
    let error = CheckpointError.packedWeight(file: path, tensor: "w", layout: "q8 [5, 32]")
    #expect(throws: error) { try reader.tensor("w") }
    #expect(throws: error) { try reader.tensor("w", shape: [5, 32], neededFor: "test") }
    #expect(throws: error) { try reader.tensor(Weight("w", [1, 576]), neededFor: "test") }
    #expect(throws: error) { try reader.entry("w") }
    #expect("\(error)".contains("use the folder of the model that this one was quantised from"))
  }

  // MARK: Writing

  @Test func `the writer puts panels first, at multiples of a cache line`() throws {
    let path = "\(folder.path)/model.safetensors"
    let layouts = [
      ("a", PanelLayout(.q8, outputs: 17, depth: 32)),
      ("b", PanelLayout(.q4, outputs: 3, depth: 96)),
      ("c", PanelLayout(.bfloat16, outputs: 1, depth: 5)),
    ]
    // Names of all lengths, so that the header has them too.
    for extra in 0..<70 {
      var entries = [
        SafetensorsWriter.Entry(String(repeating: "x", count: extra + 1), .float32, [3]),
        .init("norm", .bfloat16, [1]), .init("bytes", .uint8, [3]),
      ]
      for (name, layout) in layouts { entries.append(.init(name, panels: try #require(layout))) }
      let writer = try SafetensorsWriter(path: path, entries: entries)
      for entry in entries {
        let tensor = Tensor(zeros: entry.scalarType, entry.shape)
        tensor.withElements(of: UInt8.self, if: entry.panels != nil) { $0[0] = UInt8(extra) }
        try writer.write(entry.name, tensor)
      }
      try writer.commit()
      let file = try SafetensorsFile(path: path)
      for (name, layout) in layouts {
        #expect(file.panelLayout(name) == layout && file.entry(name)?.panels == layout)
        let tensor = try file.tensor(name)
        #expect(UInt(bitPattern: tensor.baseAddress) % 64 == 0 && tensor.byteOffset > 0)
        #expect(tensor.withElements(of: UInt8.self) { $0[0] } == UInt8(extra))
      }
      #expect(file.metadata["format"] == "pt" && file.panelLayout("norm") == nil)
    }
  }
}

extension Tensor {
  fileprivate func withElements(
    of type: UInt8.Type, if condition: Bool,
    _ body: (UnsafeMutableBufferPointer<UInt8>) -> Void
  ) {
    if condition { withElements(of: type) { body($0) } }
  }
}
