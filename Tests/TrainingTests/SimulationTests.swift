import Testing

@testable import Training

@Suite struct SimulationTests {
  private func simulate(
    _ kind: ScheduleKind, _ placement: [Int], _ count: Int, _ costs: StageCosts? = nil
  ) throws -> Simulation {
    try Simulation(
      Schedule(kind: kind, placement: placement, microBatches: count, costs: costs),
      costs: costs)
  }

  @Test(
    "the bubble of GPipe and 1F1B is (P − 1)/(M + P − 1)", arguments: [1, 2, 3, 4, 6, 8],
    [1, 2, 3, 4, 7, 8, 16, 32])
  func simpleBubbles(processes: Int, count: Int) throws {
    let expected = Double(processes - 1) / Double(count + processes - 1)
    for kind in [ScheduleKind.gpipe, .oneForwardOneBackward] {
      #expect(
        abs(Schedule.bubble(kind, processes: processes, microBatches: count) - expected) < 1e-12)
      let simulation = try simulate(kind, Array(0..<processes), count)
      #expect(abs(simulation.bubble - expected) < 1e-12)
      #expect(abs(simulation.makespan - 3 * Double(count + processes - 1)) < 1e-9)
    }
  }

  @Test(
    "interleaving divides the idle time by the chunks",
    arguments: [(2, 2), (2, 3), (3, 2), (4, 2), (4, 3), (8, 2)], [1, 2, 3, 4])
  func interleavedBubble(ring: (Int, Int), groups: Int) throws {
    let (processes, chunks) = ring
    let count = processes * groups
    let placement = (0..<processes * chunks).map { $0 % processes }
    let simulation = try simulate(.interleaved, placement, count)
    let expected = Schedule.bubble(
      .interleaved, processes: processes, microBatches: count, chunks: chunks)
    #expect(abs(simulation.bubble - expected) < 1e-12)
    let plain = Schedule.bubble(
      .oneForwardOneBackward, processes: processes, microBatches: count)
    let idle = { (bubble: Double) in bubble / (1 - bubble) }
    #expect(abs(idle(simulation.bubble) * Double(chunks) - idle(plain)) < 1e-12)
  }

  @Test(
    "ZB-H1 idles a third as long as 1F1B", arguments: [2, 3, 4, 6, 8], [0, 1, 4, 9])
  func zeroBubble(processes: Int, more: Int) throws {
    let count = processes + more
    let simulation = try simulate(.zeroBubble, Array(0..<processes), count)
    let expected = Schedule.bubble(.zeroBubble, processes: processes, microBatches: count)
    #expect(abs(simulation.bubble - expected) < 1e-12)
    let plain = try simulate(.oneForwardOneBackward, Array(0..<processes), count)
    let work = Double(3 * count)
    #expect(abs(3 * (simulation.makespan - work) - (plain.makespan - work)) < 1e-9)
  }

  @Test("the serial schedule has one process at work at a time", arguments: [1, 2, 5])
  func serial(processes: Int) throws {
    for placement in [Array(0..<processes), Array(0..<processes) + Array(0..<processes)] {
      let simulation = try simulate(.serial, placement, 4)
      #expect(abs(simulation.bubble - (1 - 1 / Double(processes))) < 1e-12)
      let formula = Schedule.bubble(.serial, processes: processes, microBatches: 4)
      #expect(abs(simulation.bubble - formula) < 1e-12)
      let spans = simulation.timeline.joined().sorted { $0.start < $1.start }
      for (before, after) in zip(spans, spans.dropFirst()) { #expect(before.end <= after.start) }
    }
  }

  @Test("interleaving beats 1F1B on the rings whatever the micro-batches", arguments: [2, 3, 4])
  func raggedInterleaving(processes: Int) throws {
    let ring = (0..<processes * 2).map { $0 % processes }
    for count in processes...processes * 4 {
      let interleaved = try simulate(.interleaved, ring, count)
      // The same work: a chunk of the chain is both slices of the ring.
      let chain = StageCosts(
        Array(
          repeating: .init(forward: 2, backwardInput: 2, backwardWeight: 2), count: processes))
      let plain = try simulate(.oneForwardOneBackward, Array(0..<processes), count, chain)
      #expect(interleaved.makespan <= plain.makespan)
    }
  }

  @Test("a searched order comes near to the busiest process's work")
  func searchedOrder() throws {
    let placement = [0, 1, 2, 3, 4, 3, 4]
    let costs = StageCosts(
      placement.enumerated().map { stage, _ in
        let size = stage == 2 ? 0.2 : stage > 2 ? 1.0 : 2.0
        return .init(forward: size, backwardInput: size, backwardWeight: size)
      })
    for kind in [ScheduleKind.interleaved, .zeroBubble, .oneForwardOneBackward] {
      let simulation = try simulate(kind, placement, 24, costs)
      // The first micro-batch's way there and back, then 6 for each of the others; split
      // backwards may hide their second half.
      #expect(simulation.makespan >= 24 * 6)
      #expect(simulation.makespan < 1.001 * (24.6 + 23 * 6))
    }
  }

  @Test("a factor stretches its micro-batch in its stage alone")
  func factors() throws {
    let stages = StageCosts(uniform: 2).stages
    let schedule = try Schedule(kind: .gpipe, placement: [0, 1], microBatches: 2)
    let costs = StageCosts(stages, factors: [[1, 3], [1, 1]])
    let simulation = try Simulation(schedule, costs: costs)
    #expect(simulation.timeline[0].map(\.duration) == [1, 3, 2, 6])
    #expect(simulation.timeline[1].map(\.start) == [1, 4, 5, 7])
    #expect(simulation.timeline[0].map(\.start) == [0, 1, 7, 9])
    #expect(simulation.makespan == 15)
    #expect(abs(simulation.bubble - (1 - 18.0 / 30)) < 1e-12)
  }

  @Test("a transfer delays what waits on another process, and not on the same one")
  func transfers() throws {
    let schedule = try Schedule(kind: .gpipe, placement: [0, 0, 1], microBatches: 1)
    let costs = StageCosts(StageCosts(uniform: 3).stages, transfer: 0.5)
    let simulation = try Simulation(schedule, costs: costs)
    #expect(simulation.timeline[0].map(\.start) == [0, 1, 6, 8])
    #expect(simulation.timeline[1].map(\.start) == [2.5, 3.5])
  }

  @Test("micro-batches without pictures cost the vision stages nothing, and hold up nobody")
  func skipping() throws {
    let schedule = try Schedule(
      kind: .oneForwardOneBackward, placement: [0, 1], microBatches: 3,
      skips: Schedule.skips([0, 2], firstStages: 1, of: 2))
    let simulation = try Simulation(schedule)
    #expect(simulation.timeline[0].filter { !$0.isSkipped }.map(\.action.microBatch) == [1, 1])
    #expect(simulation.timeline[1].first?.start == 0)
    #expect(simulation.peakSaved == [1, 1])
    #expect(simulation.makespan == 9)
  }

  @Test("a schedule that waits for itself is named with the actions that are stuck")
  func deadlock() throws {
    let schedule = Schedule(
      kind: .gpipe, placement: [0, 1], microBatches: 1, skips: [],
      actions: [
        [Action(.backward, microBatch: 0), Action(.forward, microBatch: 0)],
        [Action(.forward, microBatch: 0), Action(.backward, microBatch: 0)],
      ])
    let error = TrainingError.deadlock(stuck: ["B0 of process 0", "F0 of process 1"])
    #expect(throws: error) { try Simulation(schedule) }
    #expect("\(error)".contains("B0 of process 0, F0 of process 1"))
  }

  @Test("costs that do not fit the schedule are refused")
  func wrongCosts() throws {
    let schedule = try Schedule(kind: .gpipe, placement: [0, 1], microBatches: 2)
    #expect(throws: TrainingError.costsDoNotFit(found: 1, expected: 2)) {
      try Simulation(schedule, costs: StageCosts(uniform: 1))
    }
    let unequal = StageCosts(StageCosts(uniform: 2).stages, factors: [[1, 1]])
    #expect(throws: TrainingError.costsDoNotFit(found: 1, expected: 2)) {
      try Simulation(schedule, costs: unequal)
    }
    let endless = StageCosts(StageCosts(uniform: 2).stages, transfer: .infinity)
    #expect(throws: TrainingError.invalidCost(stage: 0, found: .infinity)) {
      try Simulation(schedule, costs: endless)
    }
  }
}
