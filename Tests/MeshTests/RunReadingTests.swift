import Checkpoint
import Testing
import Training

@testable import Sequencer

@Suite struct RunReadingTests {
  @Test func `The next epoch is read while the last step of one is computed`() async throws {
    let data = try RunData()
    defer { data.remove() }
    // Eight samples make an epoch of one step.
    let steps = try await DataSteps.check(data.configuration("out")).steps
    #expect(steps.length.stepsPerEpoch == 1 && steps.length.totalSteps == 3)
    for done in 0..<3 {
      _ = try await steps.batch(after: done)
      #expect(await steps.isReadingAhead == (done < 2), "\(done)")
    }
  }

  @Test func `Samples are padded to the model's context at most`() async throws {
    let data = try RunData()
    defer { data.remove() }
    let configuration = data.configuration("out") {
      $0.maxSequenceLength = 1 << 20
      $0.padToMax = true
    }
    let context = try ModelConfiguration.load(folder: data.model).language.contextLength
    let batch = try await DataSteps.check(configuration).steps.batch(after: 0)
    #expect(batch.plan.microBatches.map(\.rows) == Array(repeating: context, count: 8))
  }

  @Test func `A model is another when a weight has another shape or config.json another number`()
    throws
  {
    let data = try RunData()
    defer { data.remove() }
    func identity(_ name: String, width: Int = 100, theta: Float = 10_000) throws -> String {
      let configuration = try ModelConfiguration(
        vision: VisionConfiguration(
          hiddenSize: 48, layerCount: 1, headCount: 3, intermediateSize: 96, imageSize: 56),
        language: LanguageConfiguration(
          hiddenSize: 64, layerCount: 1, headCount: 4, keyValueHeadCount: 2,
          intermediateSize: width, vocabularySize: 512, ropeTheta: theta))
      let folder = "\(data.path)/\(name)"
      try RandomModel.write(
        configuration, seed: 5, to: folder, tokenizerFolder: GoldenModel.tiny.folder)
      return try CheckpointReader(folder: folder).identity(.load(folder: folder))
    }
    let first = try identity("a")
    #expect(try identity("b") == first)
    #expect(try identity("c", width: 104) != first)
    #expect(try identity("d", theta: 20_000) != first)
  }
}
