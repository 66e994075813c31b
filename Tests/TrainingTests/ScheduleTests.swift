import Testing

@testable import Training

/// Placements of virtual stages on processes, from one process to rings and mixed chains.
struct PlacementCase: Sendable, CustomTestStringConvertible {
  var name: String
  var placement: [Int]
  var testDescription: String { name }

  static func chain(_ processes: Int) -> PlacementCase {
    PlacementCase(name: "chain of \(processes)", placement: Array(0..<processes))
  }

  static func ring(_ processes: Int, _ chunks: Int) -> PlacementCase {
    PlacementCase(
      name: "\(processes) processes of \(chunks)",
      placement: (0..<processes * chunks).map { $0 % processes })
  }

  static let rings = [(2, 2), (2, 3), (3, 2), (4, 2), (4, 4), (6, 2)].map(ring)
  static let mixed = [
    PlacementCase(name: "vision 2, projector, language 2×2", placement: [0, 1, 2, 3, 4, 3, 4]),
    PlacementCase(name: "projector beside vision", placement: [0, 1, 1, 2, 3]),
    PlacementCase(name: "projector beside language", placement: [0, 1, 1, 2]),
    PlacementCase(name: "all in one, in slices", placement: [0, 0, 0]),
    PlacementCase(name: "there and back", placement: [0, 1, 2, 1, 0]),
    PlacementCase(name: "ring turned round", placement: [1, 0, 1, 0]),
    PlacementCase(name: "ring of 3 behind vision", placement: [0, 1, 2, 3, 1, 2, 3, 1, 2, 3]),
  ]
  static let all = [1, 2, 3, 4, 6, 8].map(chain) + rings + mixed
}

let microBatchCounts = [1, 2, 3, 4, 7, 8, 12]

@Suite struct ScheduleTests {
  @Test(
    "every micro-batch goes forward and backward once, in order, in every virtual stage",
    arguments: PlacementCase.all, ScheduleKind.allCases)
  func completeness(_ placement: PlacementCase, _ kind: ScheduleKind) throws {
    for count in microBatchCounts {
      let schedule = try Schedule(
        kind: kind, placement: placement.placement, microBatches: count)
      let inOrder = Array(0..<count)
      for process in 0..<schedule.processes {
        let actions = schedule.actions[process]
        for chunk in schedule.stages(of: process).indices {
          func microBatches(_ kind: Action.Kind) -> [Int] {
            actions.filter { $0.kind == kind && $0.chunk == chunk }.map(\.microBatch)
          }
          #expect(microBatches(.forward) == inOrder)
          if kind == .zeroBubble {
            #expect(microBatches(.backward) == [])
            #expect(microBatches(.backwardInput) == inOrder)
            #expect(microBatches(.backwardWeight) == inOrder)
          } else {
            #expect(microBatches(.backward) == inOrder)
            #expect(microBatches(.backwardInput) == [])
            #expect(microBatches(.backwardWeight) == [])
          }
        }
        let perChunk = kind == .zeroBubble ? 3 : 2
        #expect(actions.count == perChunk * count * schedule.stages(of: process).count)
        var done: Set<Action> = []
        let early = actions.filter { action in
          defer { done.insert(action) }
          let needed: Action.Kind = action.kind == .backwardWeight ? .backwardInput : .forward
          return action.kind != .forward
            && !done.contains(Action(needed, microBatch: action.microBatch, chunk: action.chunk))
        }
        #expect(early == [])
      }
    }
  }

  @Test(
    "no schedule deadlocks, whatever the costs and whoever skips",
    arguments: PlacementCase.all, ScheduleKind.allCases)
  func liveness(_ placement: PlacementCase, _ kind: ScheduleKind) throws {
    var random = SystemIndependentRandom(7)
    let stages = placement.placement.count
    for count in microBatchCounts {
      for skipped in [Set<Int>(), [0], Set(0..<count), Set(stride(from: 1, to: count, by: 2))] {
        let costs = StageCosts(
          (0..<stages).map { _ in
            StageCosts.Stage(
              forward: random.unit(), backwardInput: random.unit(), backwardWeight: random.unit())
          }, transfer: 0.1)
        let schedule = try Schedule(
          kind: kind, placement: placement.placement, microBatches: count,
          skips: Schedule.skips(skipped, firstStages: stages - 1, of: stages), costs: costs)
        let simulation = try Simulation(schedule, costs: costs)
        #expect(simulation.timeline.map(\.count) == schedule.actions.map(\.count))
        #expect(disorders(simulation, schedule) == [])
        let zero = StageCosts(
          Array(repeating: .init(forward: 0, backwardInput: 0, backwardWeight: 0), count: stages))
        #expect(try Simulation(schedule, costs: zero).makespan == 0)
      }
    }
  }

  /// Actions that start before what they depend on, or while their process does another thing.
  private func disorders(_ simulation: Simulation, _ schedule: Schedule) -> [Action] {
    let count = schedule.placement.count
    var forward = Array(
      repeating: Array(repeating: 0.0, count: schedule.microBatches), count: count)
    var backward = forward
    for span in simulation.timeline.joined() where !span.isSkipped {
      switch span.action.kind {
      case .forward: forward[span.stage][span.action.microBatch] = span.end
      case .backward, .backwardInput: backward[span.stage][span.action.microBatch] = span.end
      case .backwardWeight: break
      }
    }
    var wrong: [Action] = []
    for row in simulation.timeline {
      var free = 0.0
      for span in row {
        if span.start < free { wrong.append(span.action) }
        free = span.end
        if span.isSkipped { continue }
        let index = span.action.microBatch
        let needed: [Double]
        switch span.action.kind {
        case .forward: needed = (0..<span.stage).map { forward[$0][index] }
        case .backward, .backwardInput:
          needed =
            [forward[span.stage][index]] + (span.stage + 1..<count).map { backward[$0][index] }
        case .backwardWeight: needed = [backward[span.stage][index]]
        }
        if needed.contains(where: { $0 > span.start }) { wrong.append(span.action) }
      }
    }
    return wrong
  }

  @Test("what is kept stays within each schedule's bound", arguments: PlacementCase.all)
  func peaks(_ placement: PlacementCase) throws {
    for count in microBatchCounts {
      func peaks(_ kind: ScheduleKind) throws -> [Int] {
        let schedule = try Schedule(
          kind: kind, placement: placement.placement, microBatches: count)
        return try Simulation(schedule).peakSaved
      }
      let builder = ScheduleBuilder(
        placement: placement.placement, microBatches: count, skips: [],
        costs: StageCosts(uniform: placement.placement.count))
      let links = builder.links.count
      for (process, own) in builder.linksOfProcess.enumerated() {
        let held = own.map { builder.links[$0].stages.count }
        let all = held.reduce(0, +) * count
        #expect(try peaks(.gpipe)[process] == all)
        #expect(try peaks(.serial)[process] == held.reduce(0, +))
        let byDistance = zip(own, held).reduce(0) { $0 + min(count, links - $1.0) * $1.1 }
        let first = zip(own, held).reduce(0) { $0 + min(count, links) * $1.1 }
        #expect(try peaks(.oneForwardOneBackward)[process] <= byDistance)
        #expect(try peaks(.zeroBubble)[process] <= first)
        // Two round trips through the ring and a group for every further chunk.
        let group = min(count, 2 * builder.processes)
        let ring = 2 * (builder.processes - 1) + (own.count - 1) * group + 1
        #expect(
          try peaks(.interleaved)[process] <= max(byDistance, min(all, ring * (held.max() ?? 0))))
      }
    }
  }

  @Test("1F1B keeps exactly as many micro-batches as stages are left, itself included")
  func peakOfOneForwardOneBackward() throws {
    let schedule = try Schedule(
      kind: .oneForwardOneBackward, placement: [0, 1, 2, 3], microBatches: 8)
    #expect(try Simulation(schedule).peakSaved == [4, 3, 2, 1])
    let few = try Schedule(
      kind: .oneForwardOneBackward, placement: [0, 1, 2, 3], microBatches: 2)
    #expect(try Simulation(few).peakSaved == [2, 2, 2, 1])
  }

  @Test("ZB-H1 keeps no more than 1F1B's first stage does", arguments: [1, 2, 3, 4, 6, 8])
  func peakOfZeroBubble(processes: Int) throws {
    for count in microBatchCounts {
      let schedule = try Schedule(
        kind: .zeroBubble, placement: Array(0..<processes), microBatches: count)
      let plain = try Schedule(
        kind: .oneForwardOneBackward, placement: Array(0..<processes), microBatches: count)
      let bound = try #require(try Simulation(plain).peakSaved.first)
      #expect(try Simulation(schedule).peakSaved.allSatisfy { $0 <= bound })
    }
  }

  @Test("schedules print as rows")
  func rows() throws {
    func text(_ kind: ScheduleKind, _ placement: [Int], _ count: Int) throws -> String {
      try Schedule(kind: kind, placement: placement, microBatches: count).description
    }
    #expect(
      try text(.gpipe, [0, 1], 3) == """
        0: F0 F1 F2 B0 B1 B2
        1: F0 F1 F2 B0 B1 B2
        """)
    #expect(
      try text(.oneForwardOneBackward, [0, 1, 2], 4) == """
        0: F0 F1 F2 B0 F3 B1 B2 B3
        1: F0 F1 B0 F2 B1 F3 B2 B3
        2: F0 B0 F1 B1 F2 B2 F3 B3
        """)
    #expect(
      try text(.zeroBubble, [0, 1, 2], 4) == """
        0: F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3
        1: F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3
        2: F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3
        """)
    #expect(
      try text(.interleaved, [0, 1, 0, 1], 4) == """
        0: F0 F1 F0/1 F1/1 F2 B0/1 F3 B1/1 F2/1 B0 F3/1 B1 B2/1 B3/1 B2 B3
        1: F0 F1 F0/1 B0/1 F1/1 B1/1 F2 B0 F3 B1 F2/1 B2/1 F3/1 B3/1 B2 B3
        """)
    #expect(
      try text(.serial, [0, 1, 0], 2) == """
        0: F0 F0/1 B0/1 B0 F1 F1/1 B1/1 B1
        1: F0 B0 F1 B1
        """)
    let skipping = try Schedule(
      kind: .gpipe, placement: [0, 1], microBatches: 2,
      skips: Schedule.skips([1], firstStages: 1, of: 2))
    #expect(skipping.description == "0: F0 (F1) B0 (B1)\n1: F0 F1 B0 B1")
  }

  @Test("neighbouring slices on one process act as one")
  func links() throws {
    let schedule = try Schedule(
      kind: .oneForwardOneBackward, placement: [0, 0, 1], microBatches: 2)
    #expect(
      schedule.description == """
        0: F0 F0/1 F1 F1/1 B0/1 B0 B1/1 B1
        1: F0 B0 F1 B1
        """)
  }

  struct BadSchedule: Sendable {
    var placement: [Int]
    var microBatches = 1
    var skips: [Set<Int>] = []
    var costs: StageCosts?
    var error: TrainingError
  }

  @Test(
    "a schedule that cannot be is refused",
    arguments: [
      BadSchedule(placement: [], error: .emptyPlacement),
      BadSchedule(
        placement: [0, 2], error: .processWithoutStage(process: 1, processes: 3)),
      BadSchedule(
        placement: [0, Int.max - 1],
        error: .processWithoutStage(process: 1, processes: Int.max)),
      BadSchedule(placement: [0, -1], error: .negativeProcess(stage: 1, process: -1)),
      BadSchedule(placement: [0], microBatches: 0, error: .noMicroBatches(found: 0)),
      BadSchedule(
        placement: [0, 1], microBatches: 2, skips: [[2], []],
        error: .skipOutOfRange(stage: 0, microBatch: 2, stages: 2, microBatches: 2)),
      BadSchedule(
        placement: [0, 1], microBatches: 2, skips: [[]],
        error: .skipOutOfRange(stage: 1, microBatch: nil, stages: 2, microBatches: 2)),
      BadSchedule(
        placement: [0, 1], costs: StageCosts(uniform: 3),
        error: .costsDoNotFit(found: 3, expected: 2)),
      BadSchedule(
        placement: [0], microBatches: 2,
        costs: StageCosts(StageCosts(uniform: 1).stages, factors: [[1]]),
        error: .costsDoNotFit(found: 1, expected: 2)),
      BadSchedule(
        placement: [0],
        costs: StageCosts([.init(forward: -1, backwardInput: 1, backwardWeight: 1)]),
        error: .invalidCost(stage: 0, found: -1)),
    ])
  func refusals(_ bad: BadSchedule) throws {
    #expect(throws: bad.error) {
      try Schedule(
        kind: .interleaved, placement: bad.placement, microBatches: bad.microBatches,
        skips: bad.skips, costs: bad.costs)
    }
  }
}

/// Numbers that are the same in every run.
struct SystemIndependentRandom {
  private var state: UInt64

  init(_ seed: UInt64) { state = seed }

  mutating func bits() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state >> 33
  }

  /// From 1/8 to 4.
  mutating func unit() -> Double { Double(bits() % 32 + 1) / 8 }
}
