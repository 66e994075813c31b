import InternVL
import Testing

@Suite struct InternVLErrorTests {
  @Test(
    "A description says what was found and what to do",
    arguments: [
      (
        InternVLError.layersOutsideModel(part: "vision encoder", layers: 30..<60, available: 45),
        ["30–59", "vision encoder", "0–44", "--layers"]
      ),
      (.unevenSplit(layers: 3, stages: 4), ["3 layers", "4 stages", "1–3"]),
      (
        .stagesDoNotCover(part: "vision encoder", stages: [0..<2, 3..<4], available: 4),
        ["vision encoder", "0–1", "3", "0–3", "--layers"]
      ),
      (
        .wrongStage(what: "embed tokens", layers: 5..<6, needed: "first"),
        ["layers 5", "embed tokens", "first"]
      ),
      (
        .rowsNotCovered(sequence: 9, rows: 2..<5, expectedStart: 1, total: 8),
        ["sequence 9", "2..<5", "8 rows", "row 1"]
      ),
      (.sequenceTwice(sequence: 4), ["sequence 4", "two parts"]),
      (
        .positionGap(sequence: 4, position: 20, cached: 12),
        ["sequence 4", "12 tokens", "position 20"]
      ),
      (.beyondContext(sequence: 4, end: 4097, context: 4096), ["4097", "4096", "shorten"]),
      (
        .cacheFull(sequence: 4, tokens: 300, freeTokens: 64, capacity: 512),
        ["300", "64", "512", "--cache-tokens"]
      ),
      (.cacheBudget(tokens: -1, maximum: 4096), ["-1", "4096", "--cache-tokens"]),
      (.imageRowsOutsideStep(row: 3, count: 2, step: 4), ["2 image rows", "row 3", "4 rows"]),
      (.placeholderMismatch(placeholders: 256, imageRows: 512), ["256", "512"]),
      (.emptyPrompt, ["no tokens"]),
      (.unknownMicroBatch(index: 7), ["micro-batch 7", "forward pass"]),
      (.tokensMissing(what: "labels", found: 3, rows: 12), ["12 rows", "3 labels"]),
      (.tiedTensorSplit(layers: 0..<4), ["0–3", "one tensor", "one language stage"]),
      (
        .targetsDoNotFit(what: "classes of group 1", found: 63, expected: 64),
        ["classes of group 1", "63", "64"]
      ),
    ])
  func description(_ error: InternVLError, _ parts: [String]) {
    for part in parts { #expect("\(error)".contains(part), "\(error)") }
  }
}
