import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct SafetensorsFileTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private let valid = #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  "#
  private let data: [UInt8] = [0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0]

  @Test func `maps a tensor`() throws {
    let file = try SafetensorsFile(path: folder.write("f", safetensors(valid, data: data)))
    let tensor = try file.tensor("a")
    #expect(tensor.scalarType == .float32 && tensor.shape == [2] && tensor.floats == [1, -2])
    #expect(file.names == ["a"] && file.contains("a") && !file.contains("b"))
    #expect(file.shape("a") == [2] && file.shape("b") == nil && file.dataByteCount == 8)
  }

  @Test func `tensors of one file share a mapping that outlives the file object`() throws {
    var file: SafetensorsFile? = try SafetensorsFile(
      path: folder.write("f", safetensors(valid, data: data)))
    let first = try file?.tensor("a")
    let second = try file?.tensor("a", shape: [2], neededFor: "test")
    #expect(first?.storage === second?.storage)
    file = nil
    unlink("\(folder.path)/f")
    #expect(first?.floats == [1, -2])
  }

  @Test func `a mapping ends with its last tensor`() throws {
    let file = try SafetensorsFile(path: folder.write("f", safetensors(valid, data: data)))
    weak var storage: Storage?
    do {
      let tensor = try file.tensor("a")
      storage = tensor.storage
      #expect(storage != nil && tensor.count == 2)
    }
    #expect(storage == nil)
    #expect(try file.tensor("a").floats == [1, -2])
  }

  @Test(arguments: 1...7)
  func `tensors at unaligned places are copied`(padding: Int) throws {
    let header = valid.dropLast(2) + String(repeating: " ", count: padding)
    let file = try SafetensorsFile(
      path: folder.write("f", safetensors(String(header), data: data)))
    let tensor = try file.tensor("a")
    #expect(tensor.floats == [1, -2])
    #expect(UInt(bitPattern: tensor.baseAddress) % 4 == 0)
  }

  @Test func `an unaligned place inside the data is copied too`() throws {
    let header =
      #"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"#
      + #""b":{"dtype":"BF16","shape":[2],"data_offsets":[3,7]},"#
      + #""c":{"dtype":"I64","shape":[1],"data_offsets":[7,15]}}"#
    let bytes: [UInt8] = [1, 2, 3, 0x80, 0x3F, 0, 0xC0, 9, 0, 0, 0, 0, 0, 0, 0]
    let file = try SafetensorsFile(path: folder.write("f", safetensors(header, data: bytes)))
    #expect(try file.tensor("a").withElements(of: UInt8.self) { Array($0) } == [1, 2, 3])
    #expect(try file.tensor("b").floats == [1, -2])
    #expect(try file.tensor("c").withElements(of: Int64.self) { Array($0) } == [9])
  }

  @Test func `a huge unaligned tensor is not copied`() throws {
    let count = 4 << 30
    let header = #"{"a":{"dtype":"F32","shape":[\#(count)],"data_offsets":[0,\#(4 * count)]}}"#
    let padded = header + String(repeating: " ", count: 5 - header.utf8.count % 4)
    let path = try folder.write("f", safetensors(padded))
    #expect(truncate(path, off_t(8 + padded.utf8.count + 4 * count)) == 0)
    #expect(throws: CheckpointError.misaligned(file: path, tensor: "a", byteCount: 4 * count)) {
      try SafetensorsFile(path: path).tensor("a")
    }
  }

  @Test func `an empty tensor has no bytes`() throws {
    let header =
      #"{"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}"#
    let file = try SafetensorsFile(path: folder.write("f", safetensors(header)))
    #expect(try file.tensor("a").count == 0)
  }

  @Test(arguments: 0..<8)
  func `a file shorter than its length field is truncated`(count: Int) throws {
    let path = try folder.write("f", [UInt8](repeating: 0, count: count))
    #expect(
      throws: CheckpointError.truncatedHeader(file: path, headerLength: 0, byteCount: count)
    ) { try SafetensorsFile(path: path) }
  }

  @Test func `a file cut anywhere is refused`() throws {
    let whole = safetensors(valid, data: data)
    for count in 8..<whole.count {
      let path = try folder.write("f", Array(whole.prefix(count)))
      #expect(throws: CheckpointError.self, "cut to \(count)") { try SafetensorsFile(path: path) }
    }
  }

  @Test func `a header longer than the file is refused`() throws {
    let path = try folder.write("f", [100, 0, 0, 0, 0, 0, 0, 0, 0x7B, 0x7D])
    #expect(
      throws: CheckpointError.truncatedHeader(file: path, headerLength: 100, byteCount: 10)
    ) { try SafetensorsFile(path: path) }
  }

  @Test(arguments: [100_000_001, UInt64.max, 1 << 63, UInt64(Int.max)])
  func `a header over the cap is refused`(length: UInt64) throws {
    let path = try folder.write(
      "f", withUnsafeBytes(of: length.littleEndian) { Array($0) } + [0x7B, 0x7D])
    #expect(
      throws: CheckpointError.headerTooLong(
        file: path, headerLength: length, limit: 100_000_000)
    ) { try SafetensorsFile(path: path) }
  }

  @Test func `a missing file, a folder and a device are refused`() throws {
    let missing = "\(folder.path)/none"
    #expect(throws: CheckpointError.missingFile(missing)) { try SafetensorsFile(path: missing) }
    let inner = try folder.makeFolder("inner")
    #expect(throws: CheckpointError.notAFile(inner)) { try SafetensorsFile(path: inner) }
    #expect(throws: CheckpointError.notAFile("/dev/zero")) {
      try SafetensorsFile(path: "/dev/zero")
    }
  }

  @Test func `a pipe does not make the reader wait`() throws {
    let path = "\(folder.path)/pipe"
    #expect(mkfifo(path, 0o600) == 0)
    #expect(throws: CheckpointError.notAFile(path)) { try SafetensorsFile(path: path) }
  }

  @Test func `a file cut after its header was read is refused`() throws {
    let path = try folder.write("f", safetensors(valid, data: data))
    let file = try SafetensorsFile(path: path)
    #expect(truncate(path, 20) == 0)
    #expect(throws: CheckpointError.changedWhileInUse(file: path)) { try file.tensor("a") }
  }

  @Test func `a file renamed over stays what it was for who has it open`() throws {
    let path = try folder.write("f", safetensors(valid, data: data))
    let file = try SafetensorsFile(path: path)
    try folder.write("f", safetensors(valid, data: [UInt8](repeating: 0, count: 8)))
    #expect(try file.tensor("a").floats == [1, -2])
    #expect(try SafetensorsFile(path: path).tensor("a").floats == [0, 0])
  }

  @Test func `missing tensors, wrong shapes and types are named`() throws {
    let header =
      #"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"#
      + #""b":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},"#
      + #""c":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#
    let path = try folder.write("f", safetensors(header, data: .init(repeating: 0, count: 16)))
    let file = try SafetensorsFile(path: path)
    let stage = "this stage holds vision layers 0–8"
    #expect(
      throws: CheckpointError.missingTensor(file: path, tensor: "d", neededFor: stage)
    ) { try file.tensor("d", shape: [1], neededFor: stage) }
    #expect(
      throws: CheckpointError.shapeMismatch(
        file: path, tensor: "c", expected: [1, 1], found: [1], neededFor: stage)
    ) { try file.tensor("c", shape: [1, 1], neededFor: stage) }
    for (name, type, shape) in [("a", "F16", [2]), ("b", "I64", [1])] {
      #expect(
        throws: CheckpointError.unsupportedScalarType(
          file: path, tensor: name, found: type, expected: "BF16 or F32")
      ) { try file.tensor(name, shape: shape, neededFor: stage) }
    }
    #expect(throws: CheckpointError.self) { try file.tensor("a") }
    #expect(try file.tensor("b").scalarType == .int64)
  }
}
