import Checkpoint
import Sequencer
import Support
import Tensors
import Testing
import Training
import TrainingData
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Pixels of a run are read, and held by the first stage, micro-batch by micro-batch.
@Suite(.timeLimit(.minutes(2)), .serialized) struct RunPixelTests {
  /// Of one tile of the golden model.
  static let tile = 3 * 56 * 56 * 4

  @Test(arguments: [ScheduleKind.gpipe, .oneForwardOneBackward])
  func `The first stage holds no more pixels than it has room for, and the bits are the same`(
    _ schedule: ScheduleKind
  ) async throws {
    try await withRunData { data in
      let expected = try await data.expected()
      let configuration = data.configuration("mesh") { $0.schedule = schedule }
      var plan = RunPlan(
        vision: [0..<1, 1..<3], language: [[0..<1], [1..<3]], schedule: schedule)
      // A step has seven, and one micro-batch two of them.
      plan.pixelBytes = 2 * Self.tile + 1
      let peak = try await withRunMesh(plan) { mesh in
        try await data.run(configuration, on: mesh.session.stages)
        return mesh.peakPixelBytes
      }
      #expect(try RunBits(configuration) == expected)
      #expect(peak == 2 * Self.tile)
    }
  }

  /// Data with pictures of its own, of which one is torn after the check.
  private func torn(_ data: RunData, _ configuration: inout TrainingConfiguration) async throws
    -> DataSteps
  {
    for name in ["image.jpg", "second.jpg"] {
      try write(RunFile.read(Fixtures.path("golden/v12-tiny/\(name)")), "\(data.path)/\(name)")
    }
    try data.write("own.json", #"{"all": {"root": ".", "annotation": "data.jsonl"}}"#)
    configuration.meta = "\(data.path)/own.json"
    let steps = try await DataSteps.check(configuration).steps
    let whole = try RunFile.read("\(data.path)/second.jpg")
    try write(Array(whole.prefix(whole.count * 2 / 3)), "\(data.path)/second.jpg")
    return steps
  }

  private func write(_ bytes: [UInt8], _ path: String) throws {
    let file = try #require(fopen(path, "w"))
    fwrite(bytes, 1, bytes.count, file)
    fclose(file)
  }

  @Test(arguments: [true, false])
  func `A picture that turns bad ends the step with the name of its sample`(
    isInProcess: Bool
  ) async throws {
    try await withRunData { data in
      var configuration = data.configuration("torn")
      let steps = try await torn(data, &configuration)
      // Planning a step takes no more than the pictures' sizes.
      let batch = try await steps.batch(after: 0)
      #expect(batch.plan.tiles == 7)
      let torn = configuration
      func expectFailure(_ stages: (any TrainingStages)?) async throws {
        do {
          try await data.run(torn, on: stages, source: steps)
          Issue.record("a torn picture was trained on")
        } catch TrainingDataError.sample(let flaw) {
          #expect(flaw.kind == .tornPicture)
          #expect(flaw.source.file == "\(data.path)/data.jsonl")
          #expect([3, 4, 5, 8].contains(flaw.source.line))
        }
      }
      if isInProcess {
        try await expectFailure(nil)
      } else {
        let expected = try await data.expected()
        try await withRunMesh(RunPlan(language: [[0..<2], [2..<3]])) { mesh in
          try await expectFailure(mesh.session.stages)
          // Nothing is left of the step.
          let whole = data.configuration("whole")
          try await data.run(whole, on: mesh.session.stages)
          #expect(try RunBits(whole) == expected)
        }
      }
    }
  }

  @Test func `A step that is asked for again has the same pixels`() async throws {
    try await withRunData { data in
      let steps = try await DataSteps.check(data.configuration("again")).steps
      func pixels(_ done: Int, _ count: Int) async throws -> [UInt64] {
        let batch = try await steps.batch(after: done)
        var digests: [UInt64] = []
        for (index, microBatch) in batch.plan.microBatches.enumerated()
        where microBatch.tiles > 0 && digests.count < count {
          let tensor = try await batch.pixels(index)
          #expect(tensor.shape == [microBatch.tiles, 3, 56, 56])
          digests.append(tensor.digestOfBytes)
        }
        return digests
      }
      let first = try await pixels(0, 8)
      let second = try await pixels(1, 8)
      #expect(first.count == 6 && Set(first) == Set(second))
      // Some of a step only, then the same, the next, and the one before.
      #expect(try await pixels(0, 2) == Array(first.prefix(2)))
      #expect(try await pixels(0, 8) == first)
      _ = try await pixels(0, 1)
      #expect(try await pixels(1, 8) == second)
      #expect(try await pixels(0, 8) == first)
    }
  }
}
