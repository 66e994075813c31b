import Support
import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct TorchFileTests {
  private static func path(_ name: String) -> String { Fixtures.path("torch/\(name)") }

  /// The bytes of a tensor, which compare not-a-numbers and zeros of both signs as they are.
  private func bytes(_ tensor: Tensor) -> [UInt8] {
    withExtendedLifetime(tensor.storage) {
      Array(UnsafeRawBufferPointer(start: tensor.baseAddress, count: tensor.byteCount))
    }
  }

  private func expectEqual(_ found: (String) throws -> Tensor, _ names: [String]? = nil) throws {
    let expected = try SafetensorsFile(path: TorchFileTests.path("mixed.safetensors"))
    for name in names ?? expected.names {
      let (one, other) = (try found(name), try expected.tensor(name))
      #expect(one.scalarType == other.scalarType, "\(name)")
      #expect(one.shape == other.shape, "\(name)")
      #expect(bytes(one) == bytes(other), "\(name)")
    }
  }

  @Test(arguments: ["mixed.pth", "protocol4.pth", "nested.pth"])
  func `tensors are what PyTorch made of them`(name: String) throws {
    let file = try TorchFile(path: TorchFileTests.path(name))
    #expect(file.names.count == 14)
    try expectEqual { try file.tensor($0, neededFor: nil) }
    #expect(
      try file.entry("half") == SafetensorsWriter.Entry("half", .float32, [10])
        && file.entry("double") == nil)
  }

  @Test func `shards with an index are read as one`() throws {
    let reader = try CheckpointReader(folder: TorchFileTests.path("sharded"))
    #expect(reader.names.count == 14)
    try expectEqual { try reader.tensor($0) }
    #expect(try reader.tensor("float", shape: [3, 5], neededFor: "a test").count == 15)
    #expect(throws: CheckpointError.self) {
      try reader.tensor("float", shape: [5, 3], neededFor: "a test")
    }
    #expect(throws: CheckpointError.self) {
      try reader.tensor("integer", shape: [2, 3], neededFor: "a test")
    }
  }

  @Test func `shards without an index are named as such`() throws {
    let folder = try TemporaryFolder()
    try folder.write("pytorch_model-00001-of-00002.bin", "")
    #expect(throws: CheckpointError.missingIndex(folder: folder.path)) {
      try CheckpointReader(folder: folder.path)
    }
    try folder.write(
      "pytorch_model.bin.index.json", #"{"weight_map": {"a": "model.safetensors"}}"#)
    #expect(
      throws: CheckpointError.invalidShardName(
        file: "\(folder.path)/pytorch_model.bin.index.json", tensor: "a",
        shard: "model.safetensors")
    ) { try CheckpointReader(folder: folder.path) }
  }

  @Test func `a single file of either format is a checkpoint`() throws {
    for name in ["mixed.pth", "mixed.safetensors"] {
      let reader = try CheckpointReader(file: TorchFileTests.path(name))
      try expectEqual { try reader.tensor($0) }
    }
    let projector = try CheckpointReader(file: TorchFileTests.path("projector.pth"))
    #expect(
      projector.names
        == ["0.bias", "0.weight", "1.bias", "1.weight", "3.bias", "3.weight"])
    #expect(try projector.tensor("1.weight", shape: [8, 32], neededFor: "a test").count == 256)
  }

  @Test func `what ScalarType lacks or repeats is refused when asked for`() throws {
    let path = TorchFileTests.path("mixed.pth")
    let file = try TorchFile(path: path)
    #expect(
      throws: CheckpointError.unsupportedScalarType(
        file: path, tensor: "double", found: "DoubleStorage", expected: "bfloat16 or float32")
    ) { try file.tensor("double", neededFor: nil) }
    #expect(
      throws: CheckpointError.invalidTorchTensor(
        file: path, tensor: "expanded",
        reason: "repeats its elements; save a contiguous copy")
    ) { try file.tensor("expanded", neededFor: nil) }
    #expect(
      throws: CheckpointError.missingTensor(file: path, tensor: "none", neededFor: "a test")
    ) { try file.tensor("none", neededFor: "a test") }
  }

  @Test(arguments: [("huge.pth", [1 << 62, 0]), ("huge-rows.pth", [0, 1 << 62, 4])])
  func `a shape that cannot be counted is refused, empty or not`(name: String, shape: [Int]) {
    let path = TorchFileTests.path(name)
    #expect(
      throws: CheckpointError.invalidTorchTensor(
        file: path, tensor: "weight", reason: "has the impossible shape \(shape)")
    ) {
      let file = try TorchFile(path: path)
      _ = try file.tensor("weight", neededFor: nil).shape
      _ = file.entry("weight")?.byteCount
    }
  }

  @Test(arguments: [
    ("command.pth", "posix.system"), ("module.pth", "torch.nn.modules.linear.Linear"),
  ])
  func `what is not a tensor is refused by name`(name: String, global: String) {
    let path = TorchFileTests.path(name)
    #expect(throws: CheckpointError.forbiddenGlobal(file: path, name: global)) {
      try TorchFile(path: path)
    }
  }

  @Test(arguments: ["compressed.pth", "before-1.6.pth", "mixed.safetensors", "make_torch.py"])
  func `other files are no archives`(name: String) {
    #expect {
      try TorchFile(path: TorchFileTests.path(name))
    } throws: { error in
      guard case .invalidArchive? = error as? CheckpointError else { return false }
      return true
    }
  }

  @Test func `every float16 is widened exactly`() {
    for bits in 0...UInt16.max {
      let (found, expected) = (
        Float(bitPattern: float32(half: bits)), Float(Float16(bitPattern: bits))
      )
      #expect(found.bitPattern == expected.bitPattern || found.isNaN && expected.isNaN)
    }
  }

  @Test(arguments: ["mixed.pth", "protocol4.pth"])
  func `a file cut anywhere is refused`(name: String) throws {
    let folder = try TemporaryFolder()
    let whole = try readFile(TorchFileTests.path(name), limit: 1 << 20)
    let path = try folder.write("cut.pth", whole)
    for count in (0..<whole.count).reversed() {
      #expect(truncate(path, off_t(count)) == 0)
      #expect(throws: CheckpointError.self) { try TorchFile(path: path) }
    }
  }

  @Test(arguments: ["mixed.pth", "protocol4.pth", "nested.pth"])
  func `a changed file is read or refused, and never read outside itself`(name: String) throws {
    let folder = try TemporaryFolder()
    let whole = try readFile(TorchFileTests.path(name), limit: 1 << 20)
    var random = SeededGenerator(11)
    for round in 0..<1500 {
      var bytes = whole
      for _ in 0...round % 4 {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        case 1: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 2: bytes[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
        default:
          let from = Int.random(in: 0..<bytes.count, using: &random)
          let count = min(8, bytes.count - max(from, place))
          bytes.replaceSubrange(place..<place + count, with: whole[from..<from + count])
        }
      }
      let path = "\(folder.path)/changed.pth"
      let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
      try bytes.withUnsafeBytes {
        try writeFully($0, at: 0, to: descriptor, path: path, byteCount: bytes.count)
      }
      close(descriptor)
      do {
        let file = try TorchFile(path: path)
        for name in file.names {
          if let tensor = try? file.tensor(name, neededFor: nil) { _ = self.bytes(tensor) }
        }
      } catch {
        #expect(error is CheckpointError)
      }
    }
  }
}
