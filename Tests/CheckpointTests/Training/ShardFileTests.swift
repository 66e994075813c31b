import Tensors
import Testing

@testable import Checkpoint

@Suite struct ShardFileTests {
  @Test(
    arguments: [
      (0x3F80_0000, 0x3F80), (0x3F80_8000, 0x3F80), (0x3F80_8001, 0x3F81), (0x3F81_8000, 0x3F82),
      (0x3F80_7FFF, 0x3F80), (0x8000_0000, 0x8000), (0x0000_8000, 0), (0x0000_8001, 1),
      (0x7F7F_FFFF, 0x7F80), (0x7F80_0000, 0x7F80), (0xFF80_0000, 0xFF80),
      (0x7F80_0001, 0x7FC0), (0x7FFF_FFFF, 0x7FFF), (0xFFC0_0000, 0xFFC0),
    ] as [(UInt32, UInt16)])
  func `float32 is rounded to the nearest bfloat16, ties to even`(bits: UInt32, expected: UInt16) {
    #expect(bfloat16(bits) == expected)
  }

  @Test func `every bfloat16 comes back from float32`() {
    let all = Tensor(uninitialized: .bfloat16, [1 << 16])
    all.withElements(of: UInt16.self) { elements in
      for index in elements.indices { elements[index] = UInt16(index) }
    }
    let back = all.converted(to: .float32).converted(to: .bfloat16)
    back.withElements(of: UInt16.self) { elements in
      for index in elements.indices where !Float(bitPattern: UInt32(index) << 16).isNaN {
        #expect(elements[index] == UInt16(index))
      }
    }
  }

  @Test(arguments: [
    [], [0], [1], [3, 0, 2], [(1 << 18) - 1], [1 << 18], [(1 << 18) + 1], [3, 1 << 17],
  ])
  func `tensors of any size are converted piece by piece`(shape: [Int]) throws {
    let folder = try TemporaryFolder()
    let path = "\(folder.path)/a.safetensors"
    let tensor = SmallRun.value("t", shape)
    let narrow = tensor.converted(to: .bfloat16)
    let bytes = try ShardFile.write(
      [("same", tensor, .float32), ("narrow", tensor, .bfloat16), ("wide", narrow, .float32)],
      to: path)
    let file = try SafetensorsFile(path: path)
    #expect(try OpenFile(reading: path).byteCount == bytes)
    #expect(try file.tensor("same").floats == tensor.floats)
    #expect(try file.tensor("narrow").scalarType == .bfloat16)
    #expect(try file.tensor("narrow").floats == narrow.floats)
    #expect(try file.tensor("wide").floats == narrow.floats)
  }
}
