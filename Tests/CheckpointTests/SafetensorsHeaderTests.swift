import Testing

@testable import Checkpoint

@Suite struct SafetensorsHeaderTests {
  private func header(_ text: String, dataByteCount: Int) throws -> SafetensorsHeader {
    try SafetensorsHeader(Array(text.utf8), dataByteCount: dataByteCount, file: "f")
  }

  private func entry(_ name: String, _ type: String, _ shape: String, _ begin: Int, _ end: Int)
    -> String
  {
    #""\#(name)":{"dtype":"\#(type)","shape":\#(shape),"data_offsets":[\#(begin),\#(end)]}"#
  }

  @Test func `reads names, types, shapes, offsets and metadata`() throws {
    let text =
      "{" + #""__metadata__":{"format":"pt","step":"12"},"#
      + entry("b", "BF16", "[2,3]", 4, 16) + "," + entry("a", "F32", "[]", 0, 4) + ","
      + entry("empty", "I64", "[0,7]", 16, 16) + "}   "
    let header = try header(text, dataByteCount: 16)
    #expect(header.metadata == ["format": "pt", "step": "12"])
    #expect(header.dataOffset == 8 + text.utf8.count)
    #expect(
      header.entries == [
        "a": .init(scalarType: "F32", shape: [], begin: 0, end: 4),
        "b": .init(scalarType: "BF16", shape: [2, 3], begin: 4, end: 16),
        "empty": .init(scalarType: "I64", shape: [0, 7], begin: 16, end: 16),
      ])
  }

  @Test func `fields that the format does not know are passed over`() throws {
    let text =
      #"{"a":{"more":{"b":[1]},"dtype":"U8","shape":[1],"data_offsets":[0,1],"flag":null}}"#
    #expect(try header(text, dataByteCount: 1).entries["a"]?.shape == [1])
  }

  @Test func `a file may hold no tensor`() throws {
    #expect(try header("{}", dataByteCount: 0).entries.isEmpty)
  }

  @Test func `several empty tensors may share a place`() throws {
    let text =
      "{" + entry("x", "F32", "[0]", 4, 4) + "," + entry("y", "F32", "[1]", 0, 4) + ","
      + entry("z", "F32", "[0]", 0, 0) + "," + entry("w", "F32", "[0]", 4, 4) + "}"
    #expect(try header(text, dataByteCount: 4).entries.count == 4)
  }

  static let lies: [(String, Int, CheckpointError)] = [
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
      8, .duplicateName(file: "f", name: "a")
    ),
    (
      #"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4,
      .duplicateName(file: "f", name: "dtype")
    ),
    (
      #"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#, 4,
      .unknownScalarType(file: "f", tensor: "a", found: "F31")
    ),
    (
      #"{"a":{"shape":[1],"data_offsets":[0,4]}}"#, 4,
      .missingField(file: "f", tensor: "a", field: "dtype")
    ),
    (
      #"{"a":{"dtype":"F32","data_offsets":[0,4]}}"#, 4,
      .missingField(file: "f", tensor: "a", field: "shape")
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1]}}"#, 4,
      .missingField(file: "f", tensor: "a", field: "pair of data_offsets")
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, 4,
      .missingField(file: "f", tensor: "a", field: "pair of data_offsets")
    ),
    (
      #"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4,
      .invalidShape(file: "f", tensor: "a", shape: [-1])
    ),
    (
      #"{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}"#, 4,
      .invalidShape(file: "f", tensor: "a", shape: [-1, -1])
    ),
    (
      #"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0,
      .invalidShape(file: "f", tensor: "a", shape: [4_294_967_296, 4_294_967_296])
    ),
    (
      #"{"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,0]}}"#, 0,
      .invalidShape(file: "f", tensor: "a", shape: [2_305_843_009_213_693_952])
    ),
    (
      #"{"a":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]}}"#, 0,
      .invalidShape(file: "f", tensor: "a", shape: [1 << 62, 0])
    ),
    (
      #"{"a":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}}"#, 0,
      .invalidShape(file: "f", tensor: "a", shape: [0, 1 << 62, 4])
    ),
    (
      #"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1,
      .invalidShape(file: "f", tensor: "a", shape: [3])
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4,
      .reversedOffsets(file: "f", tensor: "a", begin: 4, end: 0)
    ),
    (
      #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}"#, 4,
      .reversedOffsets(file: "f", tensor: "a", begin: -4, end: 0)
    ),
    (
      #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4,
      .byteCountMismatch(file: "f", tensor: "a", expected: 8, found: 4)
    ),
    (
      #"{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,4]}}"#, 4,
      .byteCountMismatch(file: "f", tensor: "a", expected: 2, found: 4)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#,
      7, .overlappingOffsets(file: "f", tensor: "b", begin: 3, previousEnd: 4)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
      4, .overlappingOffsets(file: "f", tensor: "b", begin: 0, previousEnd: 4)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#, 5,
      .hole(file: "f", tensor: "a", begin: 1, previousEnd: 0)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}}"#,
      10, .hole(file: "f", tensor: "b", begin: 6, previousEnd: 4)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 3,
      .offsetsBeyondData(file: "f", tensor: "a", end: 4, dataByteCount: 3)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[0],"data_offsets":[9223372036854775807,9223372036854775807]}}"#,
      0,
      .offsetsBeyondData(file: "f", tensor: "a", end: Int.max, dataByteCount: 0)
    ),
    (
      #"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 5,
      .trailingData(file: "f", end: 4, dataByteCount: 5)
    ),
    ("{}", 1, .trailingData(file: "f", end: 0, dataByteCount: 1)),
  ]

  @Test(arguments: lies)
  func `every lie has a case of its own`(text: String, dataByteCount: Int, error: CheckpointError) {
    #expect(throws: error) { try header(text, dataByteCount: dataByteCount) }
  }

  @Test(arguments: [
    "", " {}", "[]", "null", "{}x", "{}{}", "{", #"{"a":1}"#, #"{"a":"#,
    #"{"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":"x","data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#,
    #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551620]}}"#,
    #"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
    #"{"__metadata__":{"a":1}}"#, #"{"__metadata__":"a"}"#, #"{"__metadata__":{"a":{"b":"c"}}}"#,
  ])
  func `refuses what is not such a header`(text: String) {
    #expect {
      try header(text, dataByteCount: 4)
    } throws: { error in
      guard case CheckpointError.invalidJSON? = error as? CheckpointError else { return false }
      return true
    }
  }

  @Test func `thousands of tensors are read`() throws {
    let count = 20_000
    let entries = (0..<count).map {
      entry("layers.\($0).weight", "BF16", "[2]", $0 * 4, $0 * 4 + 4)
    }
    let text = "{" + entries.shuffled().joined(separator: ",") + "}"
    #expect(try header(text, dataByteCount: count * 4).entries.count == count)
  }
}
