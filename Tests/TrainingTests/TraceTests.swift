import Testing

@testable import Training

@Suite struct TraceTests {
  private func span(
    _ process: Int, _ start: Int64, _ duration: Int64, step: Int = 0, _ action: Action? = nil
  ) -> Trace.Span {
    Trace.Span(
      process: process, step: step, action: action ?? Action(.forward, microBatch: 0),
      start: start, duration: duration)
  }

  @Test("the measured bubble is idle time over all processes' time, step by step")
  func bubble() {
    var trace = Trace(processes: ["a", "b"])
    #expect(trace.bubble() == nil)
    trace.add(span(0, 100, 40))
    trace.add(span(1, 140, 60))
    #expect(trace.bubble() == 0.5)
    // Between the steps lies an update, which is nobody's idling.
    trace.add(span(0, 1000, 100, step: 1))
    trace.add(span(1, 1000, 100, step: 1))
    #expect(trace.bubble(ofStep: 0) == 0.5)
    #expect(trace.bubble(ofStep: 1) == 0)
    #expect(trace.bubble() == 0.25)
    #expect(trace.bubble(ofStep: 2) == nil)
    #expect(trace.steps == [0, 1])
  }

  @Test("a process without work in a step does not idle in it")
  func withoutWork() {
    var trace = Trace(processes: ["vision", "a", "b"])
    trace.add(span(1, 0, 30))
    trace.add(span(2, 30, 30))
    #expect(trace.bubble(ofStep: 0) == 0.5)
    trace.add(span(0, 100, 60, step: 1))
    trace.add(span(1, 100, 60, step: 1))
    trace.add(span(2, 100, 60, step: 1))
    #expect(trace.bubble(ofStep: 1) == 0)
    // 60 idle of 120 and of 180.
    #expect(abs((trace.bubble() ?? 1) - 0.2) < 1e-12)
  }

  @Test("spans that overlap count once")
  func overlap() {
    var trace = Trace(processes: ["a"])
    trace.add(span(0, 0, 10))
    trace.add(span(0, 5, 10))
    trace.add(span(0, 6, 2))
    trace.add(span(0, 25, 5))
    #expect(trace.bubble() == 1 - 20.0 / 30)
  }

  @Test("spans of no process or no time are passed over, and those past the limit counted")
  func strangeSpans() {
    var trace = Trace(processes: ["a"], limit: 1)
    trace.add(span(1, 0, 1))
    trace.add(span(-1, 0, 1))
    trace.add(span(0, -1, 1))
    trace.add(span(0, 0, .max))
    trace.add(span(0, 0, 1, step: -1))
    trace.add(span(0, 0, 1, Action(.forward, microBatch: -1)))
    #expect(trace.spans.isEmpty && trace.dropped == 0)
    trace.add(span(0, 0, 1))
    trace.add(span(0, 1, 1))
    #expect(trace.spans.isEmpty && trace.dropped == 2 && trace.firstMissingStep == 0)
  }

  @Test("a trace that is full ends with a whole step, and says where")
  func full() {
    var trace = Trace(processes: ["a"], limit: 3)
    for step in 1...4 {
      for start in 0..<2 { trace.add(span(0, Int64(10 * step + start), 1, step: step)) }
    }
    #expect(trace.spans.map(\.step) == [1, 1])
    #expect(trace.firstMissingStep == 2 && trace.dropped == 6)
  }

  @Test("a simulation's trace has the simulation's bubble", arguments: ScheduleKind.allCases)
  func simulation(_ kind: ScheduleKind) throws {
    let schedule = try Schedule(
      kind: kind, placement: [0, 1, 2], microBatches: 4,
      skips: Schedule.skips([1], firstStages: 1, of: 3))
    let simulation = try Simulation(schedule)
    let trace = Trace(simulation, processes: ["a", "b", "c"])
    let bubble = try #require(trace.bubble())
    #expect(abs(bubble - simulation.bubble) < 1e-9)
  }

  @Test("a step played again without its waiting has the schedule's bubble")
  func replay() throws {
    let schedule = try Schedule(
      kind: .oneForwardOneBackward, placement: [0, 1, 2], microBatches: 4,
      skips: Schedule.skips([0, 1, 2, 3], firstStages: 1, of: 3))
    let costs = StageCosts([
      .init(forward: 9, backwardInput: 9, backwardWeight: 9),
      .init(forward: 1, backwardInput: 1, backwardWeight: 1),
      .init(forward: 2, backwardInput: 1, backwardWeight: 2),
    ])
    let ideal = try Simulation(schedule, costs: costs)
    var slow = costs
    slow.transfer = 3
    let trace = Trace(
      try Simulation(schedule, costs: slow), processes: ["vision", "a", "b"], step: 7)
    let replayed = try Simulation(schedule, replaying: trace, step: 7)
    #expect(abs(replayed.bubble - ideal.bubble) < 1e-12)
    #expect(replayed.makespan == ideal.makespan * 1000)
    let measured = try #require(trace.bubble())
    #expect(measured > replayed.bubble + 0.1)
    // Nothing was measured in another step.
    #expect(try Simulation(schedule, replaying: trace, step: 8).makespan == 0)
  }

  private func example() throws -> Trace {
    let schedule = try Schedule(
      kind: .interleaved, placement: [0, 1, 0, 1], microBatches: 4)
    var trace = Trace(try Simulation(schedule), processes: ["vision \"0\"", "language <&>"])
    trace.add(span(1, 90_000, 7, step: 3, Action(.backwardInput, microBatch: 2)))
    trace.add(span(1, 90_007, 0, step: 3, Action(.backwardWeight, microBatch: 2, chunk: 1)))
    return trace
  }

  @Test("what is written is read back the same")
  func roundTrip() throws {
    let trace = try example()
    #expect(try Trace(chromeJSON: Array(trace.chromeJSON.utf8)) == trace)
    let empty = Trace(processes: ["a"])
    #expect(try Trace(chromeJSON: Array(empty.chromeJSON.utf8)) == empty)
  }

  @Test("times in the file count from the first span")
  func origin() throws {
    var trace = Trace(processes: ["a"])
    trace.add(span(0, 5_000_000, 10))
    let read = try Trace(chromeJSON: Array(trace.chromeJSON.utf8))
    #expect(read.spans.map(\.start) == [0])
    #expect(
      trace.chromeJSON.contains(
        "{\"ph\":\"X\",\"name\":\"F0\",\"cat\":\"forward\",\"pid\":1,\"tid\":1,\"ts\":0,"
          + "\"dur\":10,\"args\":{\"step\":0,\"micro_batch\":0,\"chunk\":0}}"))
  }

  @Test("a bare list of events, fractions of microseconds and other tools' events are taken")
  func foreign() throws {
    let text = """
      [{"ph":"X","cat":"gpu","name":"x","pid":"a"}, {"ph":"i"}, 3,
       {"ph":"X","cat":"backward","pid":70,"ts":1.6,"dur":2.4,"args":{"step":1,"micro_batch":5}}]
      """
    let trace = try Trace(chromeJSON: Array(text.utf8))
    #expect(trace.processes == ["process 70"])
    #expect(trace.spans == [span(0, 2, 2, step: 1, Action(.backward, microBatch: 5))])
  }

  @Test(
    "a damaged trace is refused where it is damaged",
    arguments: [
      ("{}", TrainingError.invalidTrace(event: 0, reason: "there is no list traceEvents")),
      (
        "[1, {\"ph\":\"X\",\"cat\":\"forward\",\"pid\":1,\"args\":{\"step\":0}}]",
        .invalidTrace(event: 1, reason: "micro_batch is no count")
      ),
      (
        "[{\"ph\":\"X\",\"cat\":\"forward\",\"pid\":1e300}]",
        .invalidTrace(event: 0, reason: "pid is no count")
      ),
      (
        "[{\"ph\":\"X\",\"cat\":\"forward\",\"pid\":1,\"ts\":-5,\"dur\":1,"
          + "\"args\":{\"step\":0,\"micro_batch\":0}}]",
        .invalidTrace(event: 0, reason: "ts is no time in microseconds")
      ),
      ("[", .invalidJSON(offset: 1, reason: "the text ends early")),
    ])
  func damaged(text: String, error: TrainingError) {
    #expect(throws: error) { try Trace(chromeJSON: Array(text.utf8)) }
  }

  @Test("no damage to a trace ends the process", arguments: 0..<8)
  func fuzz(seed: Int) throws {
    var random = SystemIndependentRandom(UInt64(seed))
    let bytes = Array(try example().chromeJSON.utf8)
    for _ in 0..<60 {
      var damaged = bytes
      for _ in 0...random.bits() % 4 {
        damaged[Int(random.bits()) % damaged.count] = UInt8(random.bits() % 256)
      }
      if random.bits() % 3 == 0 { damaged.removeLast(Int(random.bits()) % damaged.count) }
      if let trace = try? Trace(chromeJSON: damaged) {
        _ = TraceDrawing().svg(trace)
        _ = trace.bubble()
      }
    }
  }
}

@Suite struct TraceDrawingTests {
  private func drawing(_ kind: ScheduleKind, _ processes: Int, _ count: Int) throws -> String {
    let schedule = try Schedule(
      kind: kind, placement: Array(0..<processes), microBatches: count)
    let names = (0..<processes).map { "stage <\($0)>" }
    return TraceDrawing(title: "A & B").svg(Trace(try Simulation(schedule), processes: names))
  }

  @Test("every action is a box, every process a row", arguments: [(2, 4), (6, 8), (6, 32)])
  func boxes(processes: Int, count: Int) throws {
    let text = try drawing(.zeroBubble, processes, count)
    #expect(text.split(separator: "<rect class=\"box f\"").count - 2 == processes * count)
    #expect(text.split(separator: "class=\"idle\"").count - 2 == processes)
    #expect(text.contains("stage &lt;\(processes - 1)&gt;") && !text.contains("stage <"))
    #expect(text.contains("A &amp; B") && text.hasPrefix("<svg ") && text.hasSuffix("</svg>\n"))
  }

  @Test("the bubble is printed as measured")
  func bubble() throws {
    let text = try drawing(.oneForwardOneBackward, 2, 4)
    #expect(text.contains("step 0: 2 processes, 4 micro-batches, bubble measured 20 %"))
  }

  @Test("nothing to draw is said")
  func empty() {
    #expect(TraceDrawing().svg(Trace(processes: ["a"])).contains("no actions"))
    #expect(TraceDrawing().svg(Trace(processes: [])).contains("no actions"))
  }

  @Test("one step is drawn unless more are asked for")
  func steps() {
    var trace = Trace(processes: ["a"])
    for step in 3..<6 {
      trace.add(
        Trace.Span(
          process: 0, step: step, action: Action(.forward, microBatch: 0),
          start: Int64(step) * 100, duration: 50))
    }
    func boxes(_ text: String) -> Int { text.split(separator: "class=\"box f\" x=").count - 2 }
    #expect(TraceDrawing().svg(trace).contains("step 3:"))
    #expect(TraceDrawing().svg(trace, step: 5).contains("step 5:"))
    #expect(TraceDrawing(stepLimit: 2).svg(trace).contains("steps 3 to 4:"))
    #expect(boxes(TraceDrawing(stepLimit: 2).svg(trace)) == boxes(TraceDrawing().svg(trace)) + 1)
  }
}

@Suite struct LossChartTests {
  @Test(
    "Curves are named by their runs' folders, or by paths where folders are alike",
    arguments: [
      (["a/run1/train_log.jsonl", "run2/train_log.jsonl"], ["run1", "run2"]),
      (
        ["a/run/train_log.jsonl", "b/run/train_log.jsonl"],
        ["a/run/train_log.jsonl", "b/run/train_log.jsonl"]
      ),
      (["train_log.jsonl"], ["train_log.jsonl"]), (["/log"], ["log"]), ([""], [""]),
    ])
  func names(paths: [String], expected: [String]) {
    #expect(LossChart.names(ofLogs: paths) == expected)
  }

  @Test("the line is the mean of what came before, corrected for its start")
  func smoothing() {
    #expect(LossChart.smoothed([4, 4, 4], weight: 0.5).allSatisfy { abs($0 - 4) < 1e-12 })
    let line = LossChart.smoothed([1, 3], weight: 0.5)
    #expect(line[0] == 1 && abs(line[1] - (0.25 + 1.5) / 0.75) < 1e-12)
    #expect(LossChart.smoothed([1, 3], weight: 0) == [1, 3])
  }

  @Test("a chart has a dot for each value and a line for each series")
  func chart() {
    let text = LossChart(title: "T").svg([
      .init(name: "a", points: (0..<20).map { (Double($0), 5 / Double($0 + 1)) }),
      .init(name: "b", points: [(0, 1), (10, .nan), (19, 2)]),
    ])
    #expect(text.split(separator: "<circle").count - 1 == 22)
    #expect(text.split(separator: "<polyline").count - 1 == 2)
    #expect(!text.contains("nan") && !text.contains("inf"))
  }

  @Test("a logarithmic axis leaves out what has no logarithm")
  func logarithmic() {
    let text = LossChart(isLogarithmic: true).svg([
      .init(name: "a", points: [(0, 0), (1, 10), (2, 0.1), (3, -1)])
    ])
    #expect(text.split(separator: "<circle").count - 1 == 2)
    for label in [">0.1<", ">1<", ">10<"] { #expect(text.contains(label)) }
  }

  @Test("no values, one value and equal values make a picture", arguments: [0, 1, 3])
  func few(count: Int) {
    for isLogarithmic in [false, true] {
      let text = LossChart(isLogarithmic: isLogarithmic).svg([
        .init(name: "a", points: (0..<count).map { (Double($0), 2) })
      ])
      #expect(text.contains("no values") == (count == 0))
      #expect(text.split(separator: "<circle").count - 1 == count && !text.contains("nan"))
    }
  }

  @Test("thousands of values keep the picture small")
  func many() {
    let text = LossChart().svg([
      .init(name: "a", points: (0..<50_000).map { (Double($0), 1) })
    ])
    #expect(text.split(separator: "<circle").count - 1 <= 2000)
  }

  @Test("ticks are round numbers within the range")
  func ticks() {
    #expect(Axis.ticks(0...10, count: 5) == [0, 2, 4, 6, 8, 10])
    #expect(Axis.ticks(0.13...0.47, count: 3).map(Axis.text) == ["0.2", "0.4"])
    #expect(Axis.ticks(1...1, count: 3) == [1])
    #expect(Axis.logarithmicTicks(0.5...20).map(Axis.text) == ["0.5", "1", "2", "5", "10", "20"])
    #expect(Axis.text(1e-5) == "1e-5" && Axis.text(2.5e9) == "2.5e9" && Axis.text(0) == "0")
  }
}
