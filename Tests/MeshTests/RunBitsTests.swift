import Checkpoint
import Messages
import Sequencer
import Support
import Tensors
import Testing
import Training
import Transport

/// Runs give the same bits however they are made.
@Suite(.timeLimit(.minutes(3)), .serialized) struct RunBitsTests {
  static let plans: [RunPlan] = [
    RunPlan(schedule: .gpipe),
    RunPlan(vision: [0..<1, 1..<3], language: [[0..<1], [1..<2], [2..<3]]),
    RunPlan(vision: [0..<2, 2..<3], language: [[0..<2], [2..<3]], schedule: .zeroBubble),
    RunPlan(language: [[0..<1], [1..<3]], schedule: .serial, recompute: .selective),
  ]

  @Test(arguments: plans)
  func `A run in a mesh has the bits of a run in one process`(_ plan: RunPlan) async throws {
    try await withRunData { data in
      let expected = try await data.expected()
      #expect(expected.losses.count == 3)
      let configuration = data.configuration("mesh") {
        $0.schedule = plan.schedule
        $0.recompute = plan.recompute
        $0.virtualStages = plan.language[0].count
      }
      try await withRunMesh(plan) { mesh in
        try await data.run(configuration, on: mesh.session.stages)
      }
      let found = try RunBits(configuration)
      #expect(found.losses == expected.losses)
      #expect(found == expected)
    }
  }

  @Test func `Slices dealt round robin give the same bits`() async throws {
    try await withRunData(hasFourLayers: true) { data in
      let expected = try await data.expected()
      let configuration = data.configuration("ring") {
        $0.schedule = .interleaved
        $0.recompute = .none
        $0.virtualStages = 2
      }
      let plan = RunPlan(
        vision: [0..<2, 2..<4], language: [[0..<1, 2..<3], [1..<2, 3..<4]],
        schedule: .interleaved)
      try await withRunMesh(plan, model: data.model) { mesh in
        try await data.run(configuration, on: mesh.session.stages)
      }
      #expect(try RunBits(configuration) == expected)
    }
  }

  @Test(.enabled(if: Executables.areBuilt, "needs the executables beside the test bundle"))
  func `Processes spoken to over their standard streams give the same bits`() async throws {
    try await withRunData { data in
      let expected = try await data.expected()
      let configuration = data.configuration("mesh")
      let plan = RunPlan(language: [[0..<2], [2..<3]], areChildren: true)
      try await withRunMesh(plan) { mesh in
        try await data.run(configuration, on: mesh.session.stages)
      }
      #expect(try RunBits(configuration) == expected)
    }
  }

  @Test func `A stopped run that goes on elsewhere has the bits of one that never stopped`()
    async throws
  {
    try await withRunData { data in
      let expected = try await data.expected()
      var configuration = data.configuration("stopped") { $0.stopAfter = 1 }
      let first = try await data.run(configuration)
      #expect(first.reason == .stopped && first.step == 1)
      configuration.resume = true
      try await withRunMesh(RunPlan(vision: [0..<1, 1..<3], language: [[0..<1], [1..<3]])) {
        let second = try await data.run(configuration, on: $0.session.stages)
        #expect(second.reason == .stopped && second.step == 2)
      }
      configuration.stopAfter = nil
      let last = try await data.run(configuration)
      #expect(last.reason == .finished && last.step == 3)
      #expect(try RunBits(configuration) == expected)
    }
  }

  @Test(arguments: ["vision-0", "projector", "language-0", "language-1"])
  func `A run that loses a stage goes on by itself and has the bits of one that did not`(
    _ name: String
  ) async throws {
    try await withRunData { data in
      let expected = try await data.expected()
      let configuration = data.configuration("lost") { $0.saveSteps = 1 }
      let events = RunEvents()
      try await withRunMesh(RunPlan(language: [[0..<2], [2..<3]])) { mesh in
        let host = try #require(mesh.hosts[name])
        let isFirst = Once()
        try await data.run(configuration, on: mesh.session.stages, events: events) { event in
          guard case .step(let log, _, _) = event, log.step == 2, isFirst.take() else { return }
          // In the middle of the third.
          Task {
            try? await Task.sleep(for: .milliseconds(5))
            await host.stop()
            try? await Task.sleep(for: .milliseconds(50))
            try await host.start()
          }
        }
      }
      #expect(try RunBits(configuration) == expected)
    }
  }

  @Test(arguments: ["v12-tiny"], [true, false])
  func `A probe of one step agrees with the reference`(
    _ name: String, isInProcess: Bool
  ) async throws {
    let golden = Fixtures.path("golden/\(name)")
    let probe = TrainingProbe(
      model: "\(golden)/checkpoint", samples: "\(golden)/samples.jsonl", learningRate: 1e-3,
      weightDecay: 0.05, clip: 1, decay: .hf)
    let tensors: [(name: String, tensor: Tensor)]
    if isInProcess {
      tensors = try await probe.tensors(
        InProcessStages(model: "\(golden)/checkpoint", threads: 1))
    } else {
      let plan = RunPlan(vision: [0..<1, 1..<3], language: [[0..<1], [1..<2], [2..<3]])
      tensors = try await withRunMesh(plan) { mesh in
        try await mesh.session.stages.ready(within: .seconds(30))
        return try await probe.tensors(mesh.session.stages)
      }
    }
    let found = Dictionary(uniqueKeysWithValues: tensors)
    let expected = try GoldenTraining(golden)
    let loss = try #require(found["loss"]).floats[0]
    #expect(abs(Double(loss) / expected.loss - 1) < 1e-5)
    #expect(abs(Double(try #require(found["grad_norm"]).floats[0]) / expected.norm - 1) < 1e-4)
    #expect(abs(Double(try #require(found["loss_after"]).floats[0]) - expected.lossAfter) < 1e-4)
    #expect(expected.norms.count > 50)
    for (parameter, norm) in expected.norms {
      let gradient = try #require(found["grad.\(parameter)"]).floats
      let length = gradient.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
      #expect(abs(length - norm) <= 1e-4 * norm + 1e-12, "\(parameter)")
    }
    for (parameter, first) in expected.first {
      let values = try #require(found["after.\(parameter)"]).floats
      for (value, expected) in zip(values, first) { #expect(abs(Double(value) - expected) < 2e-6) }
    }
  }
}

/// Lets through once.
final class Once: Sendable {
  private let counter = Counter()

  func take() -> Bool {
    counter.add()
    return counter.value == 1
  }
}

/// What the reference made of a step with clipping and Hugging Face's weight decay.
private struct GoldenTraining {
  var loss = 0.0
  var norm = 0.0
  var lossAfter = 0.0
  var norms: [String: Double] = [:]
  var first: [String: [Double]] = [:]

  init(_ golden: String) throws {
    let train = try JSON(path: "\(golden)/expected.json")["train"]
    loss = try train["loss"].number
    norm = try train["grad_norm"].number
    let step = try train["steps"]["hf"]
    lossAfter = try step["loss_after"].number
    norms = try train["grad_norms"].members.mapValues { try $0.number }
    first = try step["first"].members.mapValues { try $0.elements.map { try $0.number } }
  }
}

private struct JSON {
  let value: JSONValue

  init(_ value: JSONValue) { self.value = value }

  init(path: String) throws {
    value = try JSONValue.parse(try RunFile.read(path), file: path)
  }

  subscript(name: String) -> JSON {
    get throws {
      guard case .object(let members) = value else { throw Missing(name: name) }
      guard let member = members.first(where: { $0.0 == name }) else { throw Missing(name: name) }
      return JSON(member.1)
    }
  }

  var number: Double {
    get throws {
      switch value {
      case .integer(let number): return Double(number)
      case .number(let number): return number
      default: throw Missing(name: "a number")
      }
    }
  }

  var members: [String: JSON] {
    get throws {
      guard case .object(let members) = value else { throw Missing(name: "members") }
      return Dictionary(uniqueKeysWithValues: members.map { ($0.0, JSON($0.1)) })
    }
  }

  var elements: [JSON] {
    get throws {
      guard case .array(let elements) = value else { throw Missing(name: "elements") }
      return elements.map { JSON($0) }
    }
  }

  struct Missing: Error { let name: String }
}
