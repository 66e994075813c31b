import Synchronization
import Tensors
import Testing

@Suite struct TensorTests {
  @Test(
    "an element count is the product of the dimensions",
    arguments: [([], 1), ([0], 0), ([3], 3), ([2, 3, 4], 24), ([5, 0, 7], 0)])
  func counts(shape: [Int], count: Int) throws {
    #expect(try Tensor.elementCount(shape) == count)
    #expect(Tensor(zeros: .int32, shape).byteCount == 4 * count)
  }

  @Test(
    "a shape that cannot be is refused",
    arguments: [[-1], [2, -3], [Int.max, 2], [1 << 40, 1 << 40]])
  func impossibleShapes(shape: [Int]) {
    #expect(throws: TensorError.invalidShape(shape)) { try Tensor.elementCount(shape) }
  }

  @Test(
    "a tensor must lie inside its storage",
    arguments: [([4], 0, true), ([4], 4, false), ([3], 4, true), ([1], 17, false), ([0], 16, true)])
  func bounds(shape: [Int], offset: Int, fits: Bool) {
    let storage = Storage(zeroed: 16)
    if fits {
      #expect(throws: Never.self) {
        try Tensor(.float32, shape, storage: storage, byteOffset: offset)
      }
    } else {
      #expect(throws: TensorError.invalidShape(shape)) {
        try Tensor(.float32, shape, storage: storage, byteOffset: offset)
      }
    }
  }

  @Test("a byte count that overflows is refused though its element count fits")
  func byteOverflow() {
    let storage = Storage(zeroed: 16)
    let shape = [Int.max / 4]
    #expect(throws: TensorError.invalidShape(shape)) {
      try Tensor(.int64, shape, storage: storage)
    }
  }

  @Test("rows and reshapes see the same elements")
  func views() {
    let tensor = Tensor([0, 1, 2, 3, 4, 5], [3, 2])
    let row = tensor[1]
    #expect(row.shape == [2])
    #expect(row.floats == [2, 3])
    #expect(tensor.rows(1..<3).floats == [2, 3, 4, 5])
    #expect(tensor.rows(3..<3).shape == [0, 2])
    row.withElements(of: Float.self) { $0[0] = 9 }
    #expect(tensor.reshaped([6]).floats == [0, 1, 9, 3, 4, 5])
  }

  @Test("bfloat16 widens to the float with the same upper half")
  func widening() {
    let tensor = Tensor(zeros: .bfloat16, [3])
    tensor.withElements(of: UInt16.self) { elements in
      elements[0] = 0x3f80
      elements[1] = 0xc048
      elements[2] = 0x7f80
    }
    #expect(tensor.floats == [1, -3.125, .infinity])
  }

  @Test("copied elements are the other tensor's")
  func copies() {
    let target = Tensor(zeros: .float32, [2, 2])
    target.rows(1..<2).copyElements(from: Tensor([7, 8], [2]))
    #expect(target.floats == [0, 0, 7, 8])
  }

  @Test("a requirement names what was expected and what was found")
  func requirements() throws {
    let tensor = Tensor(zeros: .float32, [2, 3])
    try tensor.require(shape: [2, 3], "x")
    try tensor.require(.float32, .bfloat16, what: "x")
    #expect(
      throws: TensorError.shapeMismatch(what: "x", expected: [3, 2], found: [2, 3])
    ) { try tensor.require(shape: [3, 2], "x") }
    #expect(
      throws: TensorError.scalarTypeMismatch(what: "x", expected: [.int64], found: .float32)
    ) { try tensor.require(.int64, what: "x") }
    #expect(
      "\(TensorError.shapeMismatch(what: "x", expected: [3, 2], found: [2, 3]))"
        == "x has shape [2, 3], expected [3, 2]")
    #expect(
      "\(TensorError.scalarTypeMismatch(what: "x", expected: [.int64, .int32], found: .uint8))"
        == "x holds uint8, expected int64 or int32")
    #expect("\(TensorError.invalidShape([-1]))".contains("[-1]"))
  }

  @Test("storage is released once, when the last view of it is gone")
  func release() throws {
    let counter = Counter()
    do {
      let bytes = UnsafeMutableRawPointer.allocate(byteCount: 16, alignment: 16)
      let address = UInt(bitPattern: bytes)
      var view: Tensor?
      do {
        let storage = Storage(base: bytes, byteCount: 16) {
          UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
          counter.value.add(1, ordering: .relaxed)
        }
        view = try Tensor(.float32, [4], storage: storage).rows(2..<3)
      }
      #expect(counter.value.load(ordering: .relaxed) == 0)
      #expect(view?.shape == [1])
      view = nil
    }
    #expect(counter.value.load(ordering: .relaxed) == 1)
  }

  private final class Counter: Sendable {
    let value = Atomic<Int>(0)
  }
}
