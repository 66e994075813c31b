import Support
import Tensors
import Testing

@testable import Kernels

@Suite struct PackingTests {
  @Test(
    "panels hold sixteen outputs side by side, zeros behind the last",
    arguments: [ScalarType.float32, .bfloat16],
    [(1, 1), (16, 8), (15, 7), (17, 9), (33, 300), (48, 31), (0, 3), (3, 0)])
  func layout(type: ScalarType, shape: (Int, Int)) throws {
    let (outputs, depth) = shape
    var random = SeededRandom(2)
    let weight = random.tensor([outputs, depth], type)
    let size = type.byteCount
    let bytes = Self.bytes(weight)
    for device in TestDevices.all {
      let packed = try device.pack(weight)
      #expect(packed.outputs == outputs && packed.depth == depth)
      #expect(packed.panelBytes == (depth * 16 * size + 63) / 64 * 64)
      var expected = [UInt8](repeating: 0, count: packed.byteCount)
      for output in 0..<outputs {
        for k in 0..<depth {
          // Of halves two for consecutive k are a pair.
          let pair = 4 / size
          let element = (k / pair * 16 + output % 16) * pair + k % pair
          let place = output / 16 * packed.panelBytes + element * size
          let from = (output * depth + k) * size
          for byte in 0..<size { expected[place + byte] = bytes[from + byte] }
        }
      }
      #expect(Self.bytes(packed.panels) == expected, "\(device.instructionSet)")
    }
  }

  private static func bytes(_ tensor: Tensor) -> [UInt8] {
    withExtendedLifetime(tensor) {
      Array(UnsafeRawBufferPointer(start: tensor.baseAddress, count: tensor.byteCount))
    }
  }

  @Test("refuses what is no matrix of numbers")
  func refusals() throws {
    let device = try CPUDevice(threads: 1)
    for weight in [Tensor(zeros: .int32, [2, 3]), Tensor(zeros: .float32, [6])] {
      #expect(throws: TensorError.self) { try device.pack(weight) }
    }
  }

  @Test("rows of a packed table are those of the table", arguments: [(40, 33), (1, 1), (16, 256)])
  func embedding(rows: Int, width: Int) throws {
    var random = SeededRandom(4)
    let ids = (0..<50).map { _ in Int32.random(in: 0..<Int32(rows), using: &random) }
    for type in [ScalarType.float32, .bfloat16] {
      let table = random.tensor([rows, width], type)
      for device in TestDevices.all {
        let expected = Tensor(zeros: .float32, [ids.count, width])
        try device.embed(ids, table: table, into: expected)
        let found = Tensor(zeros: .float32, [ids.count, width])
        let packed = try device.pack(table)
        try device.embed(ids, table: .panels(packed), into: found)
        #expect(found.hasSameBits(as: expected))
        #expect(throws: KernelError.tokenOutOfRange(id: rows, rows: rows)) {
          try device.embed(
            [Int32(rows)], table: .panels(packed), into: Tensor(zeros: .float32, [1, width]))
        }
        #expect(throws: TensorError.self) {
          try device.embed(
            [0], table: .panels(packed), into: Tensor(zeros: .float32, [1, width + 1]))
        }
      }
    }
  }
}
