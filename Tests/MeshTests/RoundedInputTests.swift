import Messages
import Sequencer
import Testing

/// A mesh on `cpu:bf16`: the bits of one process that rounds, and numbers near those of one that
/// does not.
@Suite(.timeLimit(.minutes(2))) struct RoundedInputTests {
  @Test func `A mesh gives the bits of one process`() async throws {
    let model = GoldenModel.sharded
    let turns = [ChatTurn.user("What is this?\n<image>")]
    let pictures = try model.pictures("image.jpg")
    let expected = try model.compute(turns, pictures, tokens: 16, roundsInputs: true)
    for stages in [1, 2] {
      var plan = MeshPlan(model, visionStages: stages, languageStages: stages)
      plan.device = "cpu:bf16"
      plan.threads = stages
      try await withMesh(plan) { mesh in
        let found = try await mesh.client.compute(turns, pictures, tokens: 16)
        #expect(found.vision.elementsEqual(expected.vision), "vision, \(stages) stages")
        #expect(found.projector.elementsEqual(expected.projector), "projector, \(stages) stages")
        #expect(found.logits.elementsEqual(expected.logits), "logits, \(stages) stages")
        #expect(found.tokens == expected.tokens)
      }
    }
  }

  @Test func `Logits are those of exact inputs within what eight bits of them leave`() throws {
    let model = GoldenModel.sharded
    let turns = [ChatTurn.user("What is this?\n<image>")]
    let pictures = try model.pictures("image.jpg")
    let (rounded, exact) = try (
      model.compute(turns, pictures, tokens: 1, roundsInputs: true).logits,
      model.compute(turns, pictures, tokens: 1).logits
    )
    let pairs = zip(rounded, exact).map { (Float(bitPattern: $0), Float(bitPattern: $1)) }
    let greatest = pairs.reduce(0) { max($0, abs($1.1)) }
    let distance = pairs.reduce(0) { max($0, abs($1.0 - $1.1)) } / greatest
    #expect(distance > 1e-4 && distance < 0.05, "\(distance)")
  }

  @Test func `Weights in float32 are multiplied as they are`() throws {
    let model = GoldenModel.tiny
    let turns = [ChatTurn.user("What is this?")]
    let rounded = try model.compute(turns, [], tokens: 4, roundsInputs: true)
    let exact = try model.compute(turns, [], tokens: 4)
    #expect(rounded.logits.elementsEqual(exact.logits))
    #expect(rounded.tokens == exact.tokens)
  }
}
