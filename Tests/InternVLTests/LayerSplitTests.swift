import InternVL
import Testing

@Suite struct LayerSplitTests {
  @Test(
    "Ranges follow one another, cover all layers and differ by at most one",
    arguments: [(1, 1), (3, 1), (3, 2), (3, 3), (45, 4), (60, 7)])
  func even(layers: Int, stages: Int) throws {
    let split = try LayerSplit.even(layers: layers, stages: stages)
    #expect(split.count == stages)
    #expect(split.flatMap { Array($0) } == Array(0..<layers))
    let lengths = split.map(\.count)
    #expect((lengths.max() ?? 0) - (lengths.min() ?? 0) <= 1)
  }

  @Test("More stages than layers, and none, are refused", arguments: [(3, 4), (3, 0), (3, -1)])
  func refused(layers: Int, stages: Int) {
    #expect(throws: InternVLError.unevenSplit(layers: layers, stages: stages)) {
      try LayerSplit.even(layers: layers, stages: stages)
    }
  }
}
