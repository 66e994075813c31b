import Tensors
import Testing

@testable import Checkpoint

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite struct SafetensorsWriterTests {
  private let folder: TemporaryFolder
  private var path: String { "\(folder.path)/f.safetensors" }

  init() throws { folder = try TemporaryFolder() }

  private func bytes(_ tensor: Tensor) -> [UInt8] {
    withExtendedLifetime(tensor.storage) {
      Array(UnsafeRawBufferPointer(start: tensor.baseAddress, count: tensor.byteCount))
    }
  }

  @Test func `every scalar type and shape is read back`() throws {
    var generator = SeededGenerator(1)
    var tensors: [(name: String, tensor: Tensor)] = []
    for type in [ScalarType.uint8, .bfloat16, .float32, .int32, .int64] {
      for shape in [[], [1], [0], [3, 5], [2, 0, 4], [7, 1, 1, 3]] {
        let tensor = Tensor(zeros: type, shape)
        for index in 0..<tensor.byteCount {
          tensor.baseAddress.storeBytes(
            of: UInt8.random(in: 0...255, using: &generator), toByteOffset: index, as: UInt8.self)
        }
        tensors.append(("\(type) \(shape) \"é\n\"", tensor))
      }
    }
    try SafetensorsWriter.write(tensors, metadata: ["step": "3", "a": "\"b\""], to: path)
    let file = try SafetensorsFile(path: path)
    #expect(file.metadata == ["step": "3", "a": "\"b\""])
    #expect(file.names == tensors.map(\.name).sorted())
    for (name, tensor) in tensors {
      let read = try file.tensor(name)
      #expect(read.scalarType == tensor.scalarType && read.shape == tensor.shape)
      #expect(bytes(read) == bytes(tensor))
    }
    #expect(folder.names == ["f.safetensors"])
  }

  @Test func `tensors lie aligned, so that none has to be copied`() throws {
    let tensors: [(String, Tensor)] = [
      ("a", Tensor(zeros: .uint8, [3])), ("b", Tensor(zeros: .bfloat16, [3])),
      ("c", Tensor(zeros: .int64, [1])), ("d", Tensor(zeros: .float32, [1])),
    ]
    try SafetensorsWriter.write(tensors, to: path)
    let file = try SafetensorsFile(path: path)
    let read = try tensors.map { try file.tensor($0.0) }
    #expect(read.allSatisfy { $0.storage === read[0].storage })
  }

  @Test func `a file without tensors is one too`() throws {
    try SafetensorsWriter.write([], metadata: [:], to: path)
    #expect(try SafetensorsFile(path: path).names == [])
  }

  @Test func `parts in any order, from any thread, make the whole`() async throws {
    let count = 1000
    let writer = try SafetensorsWriter(
      path: path, entries: [.init("a", .float32, [count]), .init("b", .uint8, [1])])
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in (0..<count).reversed() {
        group.addTask {
          try withUnsafeBytes(of: Float(index)) { try writer.write("a", at: index * 4, $0) }
        }
      }
      try await group.waitForAll()
    }
    try writer.write("b", Tensor(zeros: .uint8, [1]))
    try writer.commit()
    #expect(
      try SafetensorsFile(path: path).tensor("a").floats == (0..<count).map { Float($0) })
  }

  @Test func `what is not committed leaves the old file and no trace`() throws {
    try SafetensorsWriter.write([("a", Tensor([1], [1]))], to: path)
    do {
      let writer = try SafetensorsWriter(
        path: path, entries: [.init("a", .float32, [1]), .init("b", .float32, [2])])
      try writer.write("a", Tensor([2], [1]))
      #expect(folder.names.count == 2)
      #expect(
        throws: CheckpointError.incompleteTensor(file: path, tensor: "b", written: 0, expected: 8)
      ) { try writer.commit() }
    }
    #expect(folder.names == ["f.safetensors"])
    #expect(try SafetensorsFile(path: path).tensor("a").floats == [1])
  }

  @Test func `a disk without room is told before the work, and nothing is left`() throws {
    let count = 1 << 55
    #expect {
      try SafetensorsWriter(path: path, entries: [.init("a", .uint8, [count])])
    } throws: { error in
      guard case CheckpointError.diskFull(path, let needed)? = error as? CheckpointError
      else { return false }
      return needed > count
    }
    #expect(folder.names == [])
  }

  @Test func `a disk that fills up while writing is told`() throws {
    let descriptor = open("/dev/full", O_WRONLY | O_CLOEXEC)
    defer { close(descriptor) }
    #expect(throws: CheckpointError.diskFull(file: "f", byteCount: 100)) {
      try [UInt8](repeating: 0, count: 10).withUnsafeBytes {
        try writeFully($0, at: 0, to: descriptor, path: "f", byteCount: 100)
      }
    }
  }

  @Test func `a folder that is not there cannot be written to`() throws {
    let path = "\(folder.path)/none/f"
    #expect {
      try SafetensorsWriter.write([("a", Tensor([1], [1]))], to: path)
    } throws: { error in
      guard case CheckpointError.unwritable(path, _)? = error as? CheckpointError
      else { return false }
      return true
    }
  }

  @Test func `a folder in the file's place is left alone`() throws {
    let inner = try folder.makeFolder("inner")
    #expect(throws: CheckpointError.self) {
      try SafetensorsWriter.write([("a", Tensor([1], [1]))], to: inner)
    }
    #expect(folder.names == ["inner"])
  }

  @Test(arguments: [["a", "a"], ["__metadata__"]])
  func `names are unique and not the format's own`(names: [String]) throws {
    #expect(throws: CheckpointError.self) {
      try SafetensorsWriter(path: path, entries: names.map { .init($0, .uint8, [1]) })
    }
    #expect(folder.names == [])
  }
}

@Suite struct ShardPlanTests {
  private func plan(_ sizes: [Int], _ limit: Int) -> ShardPlan {
    ShardPlan(
      sizes.enumerated().map { .init("t\($0.offset)", .uint8, [$0.element]) }, shardBytes: limit)
  }

  @Test(arguments: [
    ([3, 3, 3], 9, [3]), ([3, 3, 3], 8, [2, 1]), ([9, 1, 1], 2, [1, 2]), ([1], 0, [1]),
    ([1, 1, 1], 1, [1, 1, 1]), ([0, 0], 1, [2]),
  ])
  func `shards are filled in order`(sizes: [Int], limit: Int, counts: [Int]) {
    let plan = plan(sizes, limit)
    #expect(plan.shards.map(\.entries.count) == counts)
    #expect(plan.shards.flatMap(\.entries).map(\.name) == sizes.indices.map { "t\($0)" })
  }

  @Test func `shards are named as the reference's library names them`() {
    #expect(plan([1], 1).shards.map(\.fileName) == ["model.safetensors"])
    #expect(
      plan([1, 1], 1).shards.map(\.fileName) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      ])
  }

  @Test func `the index leads a reader to every tensor`() throws {
    let folder = try TemporaryFolder()
    let plan = plan([2, 2, 1], 3)
    for shard in plan.shards {
      try SafetensorsWriter.write(
        shard.entries.map { ($0.name, Tensor(zeros: .uint8, $0.shape)) },
        to: "\(folder.path)/\(shard.fileName)")
    }
    try plan.writeIndex(to: folder.path)
    let reader = try CheckpointReader(folder: folder.path)
    #expect(try reader.names.map { try reader.tensor($0).count } == [2, 2, 1])
  }
}
