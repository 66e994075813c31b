import Testing

@testable import Checkpoint

@Suite struct TorchPickleTests {
  private func read(_ bytes: [UInt8]) throws -> [String: TorchPickle.TensorRecord] {
    try TorchPickle.stateDictionary(bytes, file: "f")
  }

  private func expectInvalid(_ bytes: [UInt8]) {
    #expect {
      try read(bytes)
    } throws: { error in
      switch error as? CheckpointError {
      case .invalidPickle?, .unsupportedPickle?, .forbiddenGlobal?: true
      default: false
      }
    }
  }

  @Test func `an empty dictionary has no tensors`() throws {
    #expect(try read([0x80, 2, 0x7D, 0x2E]).isEmpty)
  }

  @Test(arguments: [
    "c__builtin__\neval\n(X\u{1}\u{0}\u{0}\u{0}1tR.", "cos\nsystem\n.",
    "ctorch\nload\n.", "ctorch._utils\n_rebuild_wrapper_subclass\n.",
    "ctorch.storage\n_load_from_bytes\n.", "ccollections\ndefaultdict\n.",
    "cbuiltins\ngetattr\n.", "ctorch\nFloatTensor\n.",
  ])
  func `globals beyond those of tensors are refused`(text: String) {
    #expect {
      try read([0x80, 2] + Array(text.utf8))
    } throws: { error in
      guard case .forbiddenGlobal("f", _)? = error as? CheckpointError else { return false }
      return true
    }
  }

  @Test(arguments: UInt8.min...UInt8.max)
  func `no instruction alone does harm`(code: UInt8) {
    for tail in [[], [0x2E], [0, 0x2E], [0, 0, 0, 0, 0x2E], [UInt8](repeating: 0xFF, count: 16)] {
      let bytes = [0x80, 2, 0x7D, code] + tail
      do { _ = try read(bytes) } catch { #expect(error is CheckpointError) }
    }
  }

  @Test(arguments: [
    // INST, OBJ, NEWOBJ, EXT1, BINPERSID of a string, REDUCE of a string, BUILD of a tuple.
    [0x28, 0x69], [0x28, 0x6F], [0x29, 0x29, 0x81], [0x82, 1], [0x8C, 0, 0x51],
    [0x8C, 0, 0x29, 0x52], [0x29, 0x29, 0x62],
    // A mark is not a value, nor may one be taken from below it.
    [0x28], [0x7D, 0x28, 0x30], [0x29, 0x28, 0x85], [0x74], [0x75], [0x71, 0], [0x68, 0],
    // Long integers of more than 64 bits; a tuple where a dictionary should be.
    [0x8A, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0x29, 0x4E, 0x4E, 0x73],
    // Strings that reach beyond the end.
    [0x58, 0xFF, 0xFF, 0xFF, 0x7F], [0x8D, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
  ])
  func `what state dictionaries are not made of is refused`(body: [UInt8]) {
    expectInvalid([0x80, 2] + body + [0x2E])
  }

  @Test func `tuples of themselves to any depth cost no stack`() {
    expectInvalid([0x80, 2, 0x29] + [UInt8](repeating: 0x85, count: 300_000) + [0x2E])
  }

  @Test func `doubling by the memo stays small`() {
    // Each level is a pair of the level before: 2⁵⁰⁰⁰ leaves, were it ever spread out.
    var bytes: [UInt8] = [0x80, 2, 0x29]
    for _ in 0..<5000 { bytes += [0x71, 0, 0x68, 0, 0x86] }
    expectInvalid(bytes + [0x2E])
  }

  @Test func `a list within itself is no cycle of memory`() {
    expectInvalid([0x80, 2, 0x5D, 0x71, 0, 0x68, 0, 0x61, 0x2E])
  }

  @Test(arguments: [0x28, 0x5D, 0x94] as [UInt8])
  func `more values than a model has are refused`(code: UInt8) {
    expectInvalid([0x80, 4, 0x4E] + [UInt8](repeating: code, count: 1 << 20))
  }
}
