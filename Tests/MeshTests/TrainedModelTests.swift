import Checkpoint
import Foundation
import InternVL
import Kernels
import Messages
import Sequencer
import Support
import Testing
import Training
import Transport

/// The model that is shipped says the same in one process, in a mesh, in company, and with weights
/// of fewer bits what it said when it was made.
@Suite(.timeLimit(.minutes(2))) struct TrainedModelTests {
  /// A line of `Fixtures/iris/answers.json`, which `compose/models/iris/recipe/pin.py` writes.
  struct Question: Decodable, Sendable {
    let picture: String
    let question: String
    /// What would be right, which the model need not have said.
    let right: String
    let answer: String
    /// By type of the weights, the end token among them.
    let tokens: [String: [Int32]]

    var turns: [ChatTurn] { [.user(question)] }

    func pictures() throws -> [Attachment] {
      [try PictureFile.read(Fixtures.path("iris/\(picture)"))]
    }

    func ask(_ client: ChatClient) async throws -> ChatResult {
      var settings = ChatSettings()
      settings.maxTokens = 24
      return try await client.ask(turns, pictures: pictures(), settings: settings)
    }
  }

  private static let file = Result {
    let path = Fixtures.path("iris/answers.json")
    let data = try Data(contentsOf: URL(fileURLWithPath: path))
    return try JSONDecoder().decode([Question].self, from: data)
  }

  static var questions: [Question] {
    get throws { try file.get() }
  }

  static let iris = GoldenModel(
    name: "iris", visionLayers: 6, languageLayers: 6,
    otherFolder: Fixtures.repository("compose/models/iris"))

  @Test func `Half of the answers are right`() throws {
    let questions = try TrainedModelTests.questions
    #expect(questions.count == 20)
    let right = questions.count { $0.answer == $0.right }
    #expect(right >= 10, "\(right) of 20")
  }

  @Test func `One process says what is pinned`() throws {
    for question in try TrainedModelTests.questions {
      let expected = try #require(question.tokens["bf16"])
      let found = try TrainedModelTests.iris.compute(
        question.turns, question.pictures(), tokens: expected.count)
      #expect(found.tokens == expected, "\(question.question)")
    }
  }

  @Test(arguments: [1, 2])
  func `A mesh says what is pinned`(_ stages: Int) async throws {
    let plan = MeshPlan(
      TrainedModelTests.iris, visionStages: stages, languageStages: stages)
    try await withMesh(plan) { mesh in
      for question in try TrainedModelTests.questions {
        let answer = try await question.ask(mesh.client)
        #expect(answer.text == question.answer)
        #expect(answer.tokenIDs == question.tokens["bf16"], "\(question.question)")
      }
    }
  }

  /// Answers by the place of their question, all asked at once.
  private func together(_ model: GoldenModel) async throws -> [ChatResult?] {
    let questions = try TrainedModelTests.questions
    return try await withMesh(MeshPlan(model)) { mesh in
      try await withThrowingTaskGroup(of: (Int, ChatResult).self) { group in
        for (index, question) in questions.enumerated() {
          group.addTask { (index, try await question.ask(mesh.client)) }
        }
        var answers = [ChatResult?](repeating: nil, count: questions.count)
        for try await (index, answer) in group { answers[index] = answer }
        return answers
      }
    }
  }

  @Test func `Twenty answers at once are those that are pinned`() async throws {
    let answers = try await together(TrainedModelTests.iris)
    for (question, answer) in zip(try TrainedModelTests.questions, answers) {
      #expect(answer?.text == question.answer)
      #expect(answer?.tokenIDs == question.tokens["bf16"], "\(question.question)")
    }
  }

  @Test(arguments: [QuantisationRecipe.Storage.q8, .q4])
  func `Quantised it says what is pinned, mostly the same`(
    _ type: QuantisationRecipe.Storage
  ) async throws {
    let directory = try SocketDirectory()
    defer { directory.remove() }
    var quantised = TrainedModelTests.iris
    quantised.otherFolder = "\(directory.path)/model"
    let work = try ModelQuantisation(
      source: TrainedModelTests.iris.folder, recipe: QuantisationRecipe(type)
    ) {
      try Quantiser.quantise($0, as: $1, into: $2)
    }
    _ = try work.write(to: quantised.folder)
    let answers = try await together(quantised)
    var same = 0
    for (question, answer) in zip(try TrainedModelTests.questions, answers) {
      #expect(answer?.tokenIDs == question.tokens["\(type)"], "\(question.question)")
      if question.tokens["\(type)"] == question.tokens["bf16"] { same += 1 }
    }
    #expect(same >= 15, "\(same) of 20 as with 16 bits")
  }

  @Test func `Its layers can be measured, though head and embedding table are one`() throws {
    let folder = TrainedModelTests.iris.folder
    let model = try ModelConfiguration.load(file: "\(folder)/config.json")
    let costs = try StageProfile.measure(model, TrainingConfiguration(), folder: folder)
    #expect(costs.vision.count == 6 && costs.vision.allSatisfy { $0 > 0 })
    #expect(costs.language.count == 6 && costs.language.allSatisfy { $0 > 0 })
    #expect(costs.projector > 0)
  }
}
