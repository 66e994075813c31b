import Testing

@testable import Text

@Suite struct StopStringsTests {
  func run(_ stops: [String], _ pieces: [String]) -> (text: String, stopped: Bool) {
    var matcher = StopStrings(stops)
    var text = ""
    for piece in pieces {
      let (emit, stopped) = matcher.push(piece)
      text += emit
      if stopped { return (text, true) }
    }
    return (text + matcher.finish(), false)
  }

  @Test func stopsAcrossPieces() {
    #expect(run(["</s>"], ["Hello <", "/s", "> more"]) == ("Hello ", true))
    #expect(run(["</s>"], ["Hello <", "/b>"]) == ("Hello </b>", false))
    #expect(run(["aab"], ["aaab", "x"]) == ("a", true))
    #expect(run(["ab", "xyab"], ["xy", "ab"]) == ("", true))
    #expect(run([], ["a", ""]) == ("a", false))
    #expect(run([""], ["a"]) == ("a", false))
    #expect(run(["。完"], ["好。", "完了"]) == ("好", true))
  }

  @Test func holdsBackOnlyWhatMayStop() {
    var matcher = StopStrings(["STOP", "TOAST"])
    #expect(matcher.push("x") == ("x", false))
    #expect(matcher.push("yST") == ("y", false))
    #expect(matcher.push("OA") == ("S", false))
    #expect(matcher.push("K") == ("TOAK", false))
    #expect(matcher.push("ST") == ("", false))
    #expect(matcher.finish() == "ST")
    #expect(matcher.finish() == "")
  }

  @Test func saysNothingAfterStopping() {
    var matcher = StopStrings(["."])
    #expect(matcher.push("a.b") == ("a", true))
    #expect(matcher.push("c") == ("", true))
    #expect(matcher.finish() == "")
  }

  @Test("agrees with a plain search", arguments: 0..<20)
  func agrees(_ seed: UInt64) {
    var draw = SeededGenerator(state: seed)
    func word(_ length: ClosedRange<Int>) -> String {
      String(
        (0..<Int.random(in: length, using: &draw)).map { _ in
          ["a", "b", "é"].randomElement(using: &draw) ?? "a"
        })
    }
    for _ in 0..<100 {
      let stops = (0..<3).map { _ in word(1...4) }
      let pieces = (0..<6).map { _ in word(0...3) }
      let whole = Array(pieces.joined())
      var expected = (text: String(whole), stopped: false)
      search: for end in 1..<(whole.count + 1) {
        for stop in stops.sorted(by: { $0.count > $1.count })
        where whole[..<end].suffix(stop.count) == Array(stop)[...] {
          expected = (String(whole[..<(end - stop.count)]), true)
          break search
        }
      }
      #expect(run(stops, pieces) == expected, "\(stops) in \(pieces)")
    }
  }
}
