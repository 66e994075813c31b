import InternVL
import Testing
import Transport

@testable import StageRuntime

/// Several slices of layers in one language process.
@Suite(.timeLimit(.minutes(1))) struct TrainingSlicesTests {
  typealias Slice = StageOptions.Slice

  struct Split: Sendable {
    let slice: Slice
    var virtualStages = 1
    let expected: [Range<Int>]
  }

  @Test(arguments: [
    Split(slice: .stage(0, of: 1), expected: [0..<8]),
    Split(slice: .stage(1, of: 2), expected: [4..<8]),
    Split(slice: .stage(0, of: 2), virtualStages: 2, expected: [0..<2, 4..<6]),
    Split(slice: .stage(1, of: 2), virtualStages: 2, expected: [2..<4, 6..<8]),
    Split(slice: .stage(1, of: 2), virtualStages: 4, expected: [1..<2, 3..<4, 5..<6, 7..<8]),
    Split(slice: .stage(0, of: 1), virtualStages: 2, expected: [0..<4, 4..<8]),
    Split(slice: .layers(2..<5), expected: [2..<5]),
    Split(slice: .several([0..<1, 3..<8]), expected: [0..<1, 3..<8]),
  ])
  func `Slices are dealt round`(_ split: Split) throws {
    #expect(
      try split.slice.ranges(of: 8, virtualStages: split.virtualStages) == split.expected)
  }

  @Test func `Slices that make no sense are refused`() throws {
    #expect(throws: StageError.invalidVirtualStages(0)) {
      try Slice.stage(0, of: 1).ranges(of: 8, virtualStages: 0)
    }
    #expect(throws: StageError.invalidVirtualStages(.max)) {
      try Slice.stage(0, of: 3).ranges(of: 8, virtualStages: .max)
    }
    #expect(throws: InternVLError.unevenSplit(layers: 8, stages: 9)) {
      try Slice.stage(0, of: 3).ranges(of: 8, virtualStages: 3)
    }
    #expect(throws: StageError.virtualStagesAndLayers) {
      try Slice.layers(0..<8).ranges(of: 8, virtualStages: 2)
    }
    for ranges in [[0..<2, 2..<4], [4..<8, 0..<2], [0..<4, 2..<8]] {
      #expect(throws: StageError.slicesOutOfOrder(ranges)) {
        try Slice.several(ranges).ranges(of: 8, virtualStages: 1)
      }
    }
    #expect(throws: StageError.severalSlices(role: "vision")) {
      try Slice.several([0..<1, 3..<8]).range(of: 8, role: "vision")
    }
  }

  @Test func `Several slices are read as they are written`() throws {
    #expect(try Slice(layers: "0-1,4-5") == .several([0..<2, 4..<6]))
    #expect(try Slice(layers: "3-3") == .layers(3..<4))
    for text in ["", ",", "0-1,", "0-1,x", "0-1;2-3", "1-0,2-3"] {
      #expect(throws: StageError.self) { try Slice(layers: text) }
    }
  }

  @Test func `A ring has to be closed, and a chain must not be`() async throws {
    let directory = try SocketDirectory()
    defer { directory.remove() }
    let model = try TrainingModel(in: directory)
    func service(_ slices: [Range<Int>], next: Endpoint?) throws {
      _ = try LanguageService(
        StageOptions(
          model: model.folder, slice: .several(slices), next: next.map { .endpoint($0) },
          cacheTokens: 64), logger: .quiet)
    }
    let next = directory.socket("next")
    #expect(throws: StageError.ringOpen(layers: [1..<2, 3..<4])) {
      try service([1..<2, 3..<4], next: nil)
    }
    #expect(throws: StageError.nextMissing(role: "language", layers: "0-0, 2-2", of: 4)) {
      try service([0..<1, 2..<3], next: nil)
    }
    #expect(throws: StageError.nextUnexpected(role: "language")) {
      try service([2..<4], next: next)
    }
    try service([1..<2, 3..<4], next: next)
    try service([0..<1, 2..<3], next: next)
  }

  @Test(arguments: [
    (StageError.ringOpen(layers: [0..<1, 2..<3]), "2 slices"),
    (.severalSlices(role: "vision"), "a vision stage holds one"),
    (.slicesOutOfOrder([0..<2, 2..<4]), "0-1, 2-3"), (.invalidVirtualStages(0), "0"),
    (.virtualStagesAndLayers, "leave --virtual-stages out"),
  ])
  func `An error says what was found`(_ error: StageError, _ part: String) {
    #expect("\(error)".contains(part))
  }
}
