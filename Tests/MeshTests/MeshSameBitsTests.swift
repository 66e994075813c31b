import Messages
import Testing
import Transport

/// A mesh computes what the model computes in one process, bit for bit.
@Suite(.timeLimit(.minutes(1))) struct MeshSameBitsTests {
  struct Prompt: Sendable {
    let turns: [ChatTurn]
    let pictures: [String]
  }

  static let prompts = [
    Prompt(turns: [.user("Describe the picture in one sentence.")], pictures: ["image.jpg"]),
    Prompt(
      turns: [
        .system("Be brief."), .user("What is this?\n<image>"), .assistant("A picture."),
        .user("And <image> this?"),
      ], pictures: ["second.jpg", "image.jpg"]),
    Prompt(turns: [.user("Name three colours.")], pictures: []),
  ]

  /// How a mesh is split.
  struct Split: Sendable, CustomTestStringConvertible {
    let model: GoldenModel
    let vision: Int
    let language: Int
    var carrier = MeshPlan.Carrier.unix
    var children: Set<String> = []
    var callsBack = false
    var stepTokens = 256

    var testDescription: String {
      let way = callsBack ? "piped both ways" : "piped"
      let pipes = children.isEmpty ? "" : ", \(children.sorted().joined(separator: ", ")) \(way)"
      return "\(model.name) \(vision)×\(language) over \(carrier)\(pipes), \(stepTokens) tokens"
    }

    var plan: MeshPlan {
      var plan = MeshPlan(model, visionStages: vision, languageStages: language)
      plan.carrier = carrier
      plan.children = children
      plan.callsBack = callsBack
      plan.limits.stepTokens = stepTokens
      return plan
    }
  }

  static let unixSplits = (1...3).flatMap { vision in
    (1...3).flatMap { language in
      [
        Split(model: .tiny, vision: vision, language: language),
        Split(model: .sharded, vision: vision, language: min(language, 2)),
      ].prefix(language == 3 ? 1 : 2)
    }
  }

  private func compare(_ split: Split) async throws {
    try await withMesh(split.plan) { mesh in
      for prompt in MeshSameBitsTests.prompts {
        let pictures = try prompt.pictures.flatMap { try split.model.pictures($0) }
        let expected = try split.model.compute(prompt.turns, pictures, tokens: 24)
        #expect(expected.vision.isEmpty == pictures.isEmpty)
        let found = try await mesh.client.compute(prompt.turns, pictures, tokens: 24)
        #expect(found.promptTokens == expected.promptTokens)
        // Not the arrays themselves: a failure would print them.
        #expect(found.pixels.elementsEqual(expected.pixels), "pixels")
        #expect(found.vision.elementsEqual(expected.vision), "vision")
        #expect(found.projector.elementsEqual(expected.projector), "projector")
        #expect(found.logits.elementsEqual(expected.logits), "logits")
        #expect(found.tokens == expected.tokens)
      }
    }
  }

  @Test(arguments: unixSplits)
  func `Every split over Unix sockets`(_ split: Split) async throws {
    try await compare(split)
  }

  @Test(arguments: [
    Split(model: .tiny, vision: 2, language: 2, carrier: .tcp),
    Split(model: .sharded, vision: 2, language: 2, carrier: .tcp),
  ])
  func `Over TCP`(_ split: Split) async throws {
    try await compare(split)
  }

  @Test(arguments: [1, 7, 16])
  func `A prompt in chunks`(_ stepTokens: Int) async throws {
    try await compare(Split(model: .tiny, vision: 1, language: 2, stepTokens: stepTokens))
  }

  @Test(
    .enabled(if: Executables.areBuilt, "the executables are not beside the test bundle"),
    arguments: [
      Split(model: .tiny, vision: 1, language: 2, children: ["language-0"]),
      Split(model: .tiny, vision: 1, language: 2, children: ["language-1"]),
      Split(
        model: .sharded, vision: 2, language: 2,
        children: ["vision-0", "vision-1", "projector", "language-0", "language-1"]),
      Split(
        model: .tiny, vision: 2, language: 3,
        children: ["vision-0", "vision-1", "projector", "language-0", "language-1"],
        callsBack: true),
    ])
  func `Over standard input and output`(_ split: Split) async throws {
    try await compare(split)
  }
}
