import Checkpoint
import InternVL
import Kernels
import Messages
import Sequencer
import Support
import Synchronization
import Tensors
import Testing
import Training
import TrainingData
import Transport

/// Runs whose loss is more than the answers, or less.
@Suite(.timeLimit(.minutes(3)), .serialized) struct ObjectiveRunTests {
  enum Kind: String, CaseIterable, Sendable {
    case everything, patchesAlone, namingAlone, patchesAndNaming

    func apply(_ configuration: inout TrainingConfiguration) {
      configuration.globalBatchSize = 6
      configuration.microBatchSize = 2
      configuration.decay = .hf
      configuration.patchClassLossWeight = self == .namingAlone ? 0 : 0.5
      if self != .patchesAlone {
        configuration.namingLossWeight = 1
        configuration.namingLossWeightEnd = 0.25
      }
      guard self != .everything else { return }
      configuration.answerLossWeight = 0
      configuration.freezeProjector = self == .patchesAlone
      configuration.freezeLanguage = self == .patchesAlone
    }
  }

  /// Replaces the data by six samples of 56 × 56 pixels, five with classes, one of text alone.
  private func write(_ data: RunData) throws {
    var random = SeededRandom(3)
    func list(_ count: Int, _ body: (inout SeededRandom) -> String) -> String {
      "[" + (0..<count).map { _ in body(&random) }.joined(separator: ", ") + "]"
    }
    func number(_ range: Range<Int>) -> (inout SeededRandom) -> String {
      { "\(Int.random(in: range, using: &$0))" }
    }
    func line(_ images: [String], _ question: String, says: Bool = true) -> String {
      let marks = images.map { _ in "<image>\\n" }.joined()
      let names = images.map { "\"\($0)\"" }.joined(separator: ", ")
      var line =
        #"{"image": [\#(names)], "conversations": [{"from": "human", "value": "\#(marks)\#(question)"}, "#
        + #"{"from": "gpt", "value": "It is \#(question)"}]"#
      if says {
        let (patches, cells) = (16 * images.count, 4 * images.count)
        line += #", "patches": {"what": \#(list(patches, number(-1..<3)))"#
        if images.count == 1 { line += #", "colour": \#(list(patches, number(-1..<4)))"# }
        line +=
          #"}, "cells": {"what": \#(list(cells) { "[\(Int.random(in: 0..<3, using: &$0))]" })}"#
      }
      return line + "}"
    }
    let lines = [
      line(["square.png"], "a square?"), line([], "a text.", says: false),
      line(["disc.png"], "round?"), line(["square.png", "disc.png"], "which?"),
      line(["disc.png"], "nothing said?", says: false), line(["square.png"], "again?"),
    ]
    try data.write("data.jsonl", lines.joined(separator: "\n") + "\n")
    try data.write(
      "meta.json",
      #"{"all": {"root": "\#(Fixtures.path("objectives"))", "annotation": "data.jsonl"}}"#)
    let classes = try RunFile.read(Fixtures.path("objectives/classes.json"))
    try data.write("classes.json", String(decoding: classes, as: UTF8.self))
  }

  /// The bits of a run, the parts of its loss among them.
  private struct Bits: Equatable {
    var run: RunBits
    var parts: [String]

    init(_ configuration: TrainingConfiguration) throws {
      run = try RunBits(configuration)
      parts = try RunBits.log(configuration).map {
        "\($0.step): \($0.answerLoss ?? -1) \($0.patchClassLoss ?? -1) "
          + "\($0.patchAccuracy ?? -1) \($0.namingLoss ?? -1)"
      }
    }
  }

  private static let plans: [RunPlan] = [
    RunPlan(vision: [0..<1, 1..<3], language: [[0..<1], [1..<3]], recompute: .none),
    RunPlan(
      vision: [0..<2, 2..<3], language: [[0..<2], [2..<3]], schedule: .zeroBubble,
      recompute: .selective),
  ]

  @Test(arguments: Kind.allCases)
  func `A run in a mesh has the bits of a run in one process`(_ kind: Kind) async throws {
    try await withRunData { data in
      try write(data)
      let expected = data.configuration("expected", kind.apply)
      try await data.run(expected)
      let bits = try Bits(expected)
      let log = try RunBits.log(expected)
      #expect(log.count == 3)
      for (index, line) in log.enumerated() {
        #expect((line.answerLoss != nil) == (kind == .everything))
        #expect((line.patchClassLoss != nil) == (kind != .namingAlone))
        #expect((line.namingLoss != nil) == (kind != .patchesAlone))
        let naming = [1, 0.625, 0.25][index]
        let total =
          (line.answerLoss ?? 0) + 0.5 * (line.patchClassLoss ?? 0)
          + naming * (line.namingLoss ?? 0)
        #expect(abs(line.loss - total) < 1e-12)
        #expect(line.gradNorm > 0)
      }
      for (index, plan) in Self.plans.enumerated() {
        let configuration = data.configuration("mesh-\(index)") {
          kind.apply(&$0)
          $0.schedule = plan.schedule
          $0.recompute = plan.recompute
        }
        let worked = Worked()
        try await withRunMesh(plan) { mesh in
          try await data.run(
            configuration, on: RecordedStages(mesh.session.stages, worked))
        }
        let found = try Bits(configuration)
        #expect(found.parts == bits.parts)
        #expect(found.run.losses == bits.run.losses)
        #expect((found == bits) as Bool)
        // vision 0 and 1, projector, language 0 and 1.
        let expectedWork: [Bool] =
          switch kind {
          case .everything: [true, true, true, true, true]
          case .patchesAlone: [true, true, false, false, false]
          case .namingAlone, .patchesAndNaming: [true, true, true, true, false]
          }
        #expect(worked.processes == expectedWork)
      }
    }
  }

  @Test func `Slices dealt round robin give the same bits`() async throws {
    try await withRunData(hasFourLayers: true) { data in
      try write(data)
      for kind in [Kind.everything, .namingAlone] {
        let expected = data.configuration("expected-\(kind)", kind.apply)
        try await data.run(expected)
        let configuration = data.configuration("ring-\(kind)") {
          kind.apply(&$0)
          $0.schedule = .interleaved
          $0.virtualStages = 2
        }
        let plan = RunPlan(
          vision: [0..<2, 2..<4], language: [[0..<1, 2..<3], [1..<2, 3..<4]],
          schedule: .interleaved)
        try await withRunMesh(plan, model: data.model) { mesh in
          try await data.run(configuration, on: mesh.session.stages)
        }
        #expect((try Bits(configuration) == Bits(expected)) as Bool, "\(kind)")
      }
    }
  }

  @Test(arguments: [Kind.everything, .patchesAlone])
  func `A stopped run that goes on elsewhere has the bits of one that never stopped`(
    _ kind: Kind
  ) async throws {
    try await withRunData { data in
      try write(data)
      let expected = data.configuration("expected", kind.apply)
      try await data.run(expected)
      var configuration = data.configuration("stopped", kind.apply)
      configuration.stopAfter = 1
      try await data.run(configuration)
      configuration.resume = true
      try await withRunMesh(RunPlan(vision: [0..<1, 1..<3], language: [[0..<1], [1..<3]])) {
        try await data.run(configuration, on: $0.session.stages)
      }
      configuration.stopAfter = nil
      try await data.run(configuration)
      #expect((try Bits(configuration) == Bits(expected)) as Bool)
    }
  }

  @Test func `A checkpoint keeps the heads, and the next run goes on from them`() async throws {
    try await withRunData { data in
      try write(data)
      let first = data.configuration("first", Kind.patchesAlone.apply)
      let events = RunEvents()
      try await data.run(first, events: events)
      #expect(events.notices.filter { $0.contains("is drawn anew: the model has none") }.count == 2)
      let log = try RunBits.log(first)
      #expect(log[0].notes.contains { $0.name == "patch_heads" && $0.text.contains("anew") })
      #expect(log[1].notes.isEmpty)
      let checkpoint = try #require(CheckpointFolder.latestValid(in: first.output).found)
      try checkpoint.check(digests: true)
      let file = try SafetensorsFile(
        path: "\(checkpoint.path)/objectives/patch_classes.safetensors")
      #expect(file.names == ["colour.bias", "colour.weight", "what.bias", "what.weight"])
      let state = try TrainingStateReader(folder: checkpoint.path)
      for group in ["what", "colour"] {
        for kind in ObjectivesFolder.Kind.allCases {
          let name = ObjectivesFolder.parameter(kind, of: group)
          let kept = try file.tensor("\(group).\(kind.rawValue)")
          #expect(try state.value(of: name)?.floats == kept.floats)
          #expect(try state.firstMoment(of: name)?.shape == kept.shape)
          #expect(kept.floats.contains { $0 != 0 })
        }
      }
      // Serving knows nothing of it.
      _ = try InternVLModel(
        folder: checkpoint.path, device: CPUDevice(threads: 1), cacheTokens: 16)

      let second = data.configuration("second") {
        Kind.everything.apply(&$0)
        $0.model = checkpoint.path
        $0.learningRate = 0
        $0.maxSteps = 1
      }
      let told = RunEvents()
      try await data.run(
        second, on: InProcessStages(model: checkpoint.path, threads: 1), events: told)
      #expect(told.notices.filter { $0.contains("goes on from the model's") }.count == 2)
      let last = try #require(CheckpointFolder.latestValid(in: second.output).found)
      let after = try SafetensorsFile(
        path: "\(last.path)/objectives/patch_classes.safetensors")
      for name in file.names {
        #expect(try after.tensor(name).floats == file.tensor(name).floats, "\(name)")
      }
    }
  }

  @Test func `A run resumes with the classes and weights of its beginning alone`() async throws {
    try await withRunData { data in
      try write(data)
      var configuration = data.configuration("run", Kind.everything.apply)
      configuration.stopAfter = 1
      try await data.run(configuration)
      configuration.resume = true
      configuration.patchClassLossWeight = 0.75
      await #expect(throws: TrainingRunError.self) { try await data.run(configuration) }
      configuration.patchClassLossWeight = 0.5
      let classes = try String(
        decoding: RunFile.read("\(data.path)/classes.json"), as: UTF8.self)
      try data.write("classes.json", classes.replacing("box", with: "cube"))
      await #expect(throws: TrainingRunError.self) { try await data.run(configuration) }
      configuration.classes = "\(data.path)/other.json"
      try data.write("other.json", classes)
      try await data.run(configuration)
    }
  }

  @Test func `The defaults have the bits of a run without any of it`() async throws {
    try await withRunData { data in
      try write(data)
      let plain = data.configuration("plain") { $0.globalBatchSize = 6 }
      try await data.run(plain)
      let log = try RunBits.log(plain)
      #expect(log.allSatisfy { $0.answerLoss == nil && $0.patchClassLoss == nil })
      // Parts that count next to nothing are computed beside, and change no answer.
      let beside = data.configuration("beside") {
        $0.globalBatchSize = 6
        $0.answerLossWeight = 2
        $0.learningRate = 0
      }
      try await data.run(beside)
      let first = try #require(try RunBits.log(beside).first)
      #expect(first.answerLoss == log[0].loss && first.loss == 2 * log[0].loss)
    }
  }
}

extension RunEvents {
  var notices: [String] {
    all.compactMap { if case .notice(let text) = $0 { text } else { nil } }
  }
}

/// Which processes had anything to do.
private final class Worked: Sendable {
  private let state = Mutex<[Bool]>([])

  var processes: [Bool] { state.withLock { $0 } }
  func take(_ outcome: StepOutcome) {
    state.withLock { $0 = outcome.timings.map { !$0.isEmpty } }
  }
}

/// Stages whose steps are looked at.
private struct RecordedStages: TrainingStages {
  let stages: any TrainingStages
  let worked: Worked

  init(_ stages: any TrainingStages, _ worked: Worked) {
    self.stages = stages
    self.worked = worked
  }

  func placement() async throws -> StagePlacement { try await stages.placement() }
  func prepare(_ preparation: TrainingPreparation) async throws -> PreparedStages {
    try await stages.prepare(preparation)
  }
  func step(_ work: StepWork) async throws -> StepOutcome {
    let outcome = try await stages.step(work)
    worked.take(outcome)
    return outcome
  }
  func update(_ update: ParameterUpdate) async throws { try await stages.update(update) }
  func abandon(step: UInt64) async { await stages.abandon(step: step) }
  func save(_ work: SaveWork) async throws -> Task<Int, any Error> { try await stages.save(work) }
  func fetch(_ names: [String], _ what: FetchedTensor) async throws -> [String: Tensor] {
    try await stages.fetch(names, what)
  }
  func ready(within duration: Duration) async throws { try await stages.ready(within: duration) }
  func release() async { await stages.release() }
}
