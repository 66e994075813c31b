import Testing

@testable import Training

@Suite struct ObjectiveSettingsTests {
  private func ready(_ change: (inout TrainingConfiguration) -> Void) -> TrainingConfiguration {
    var configuration = TrainingConfiguration()
    configuration.model = "models/small"
    configuration.meta = "meta.json"
    configuration.output = "out"
    change(&configuration)
    return configuration
  }

  @Test func `The defaults are the answers alone`() {
    let configuration = ready { _ in }
    #expect(configuration.learnsAnswers)
    #expect(!configuration.readsClasses)
    #expect(configuration.problems() == [])
  }

  @Test func `Files set the parts of the loss`() throws {
    let configuration = try TrainingConfiguration([
      ("answer_loss_weight", .integer(0)), ("patch-class-loss-weight", .text("0.5")),
      ("naming_loss_weight", .number(1)), ("naming_loss_weight_end", .number(0.25)),
      ("classes", .text("c.json")),
    ])
    #expect(!configuration.learnsAnswers && configuration.patchClassLossWeight == 0.5)
    #expect(configuration.namingLossWeightEnd == 0.25 && configuration.classes == "c.json")
    #expect(try TrainingConfiguration(json: Array(configuration.json.utf8)) == configuration)
  }

  struct Wrong: Sendable {
    var change: @Sendable (inout TrainingConfiguration) -> Void
    var words: [String]
  }

  @Test(
    "what does not go together is refused",
    arguments: [
      Wrong(change: { $0.answerLossWeight = -1 }, words: ["answer_loss_weight is -1.0"]),
      Wrong(
        change: { $0.patchClassLossWeight = .nan }, words: ["patch_class_loss_weight is nan"]),
      Wrong(change: { $0.namingLossWeight = .infinity }, words: ["naming_loss_weight is inf"]),
      Wrong(change: { $0.namingLossWeightEnd = -2 }, words: ["naming_loss_weight_end is -2.0"]),
      Wrong(change: { $0.answerLossWeight = 0 }, words: ["are all 0", "there is no loss"]),
      Wrong(
        change: {
          $0.patchClassLossWeight = 1
          $0.freezeBackbone = true
        }, words: ["patch_class_loss_weight 1.0 and freeze_backbone"]),
      Wrong(
        change: {
          $0.namingLossWeight = 1
          $0.freezeBackbone = true
          $0.freezeProjector = true
          $0.freezeLanguage = true
        }, words: ["naming_loss_weight and freeze_backbone, freeze_mlp"]),
      Wrong(
        change: {
          $0.namingLossWeight = 1
          $0.freezeBackbone = true
          $0.freezeProjector = true
          $0.useLanguageLoRA = 4
        }, words: ["naming_loss_weight and freeze_backbone, freeze_mlp"]),
      Wrong(
        change: {
          $0.answerLossWeight = 0
          $0.patchClassLossWeight = 1
          $0.freezeLanguage = true
        }, words: ["answer_loss_weight 0 and freeze_mlp false"]),
      Wrong(
        change: {
          $0.answerLossWeight = 0
          $0.patchClassLossWeight = 1
          $0.freezeProjector = true
        }, words: ["answer_loss_weight 0 and freeze_llm false"]),
      Wrong(
        change: {
          $0.answerLossWeight = 0
          $0.namingLossWeight = 1
          $0.useLanguageLoRA = 4
        }, words: ["answer_loss_weight 0 and use_llm_lora 4"]),
    ])
  func refused(_ wrong: Wrong) {
    let problems = ready(wrong.change).problems().map { "\($0)" }
    for word in wrong.words { #expect(problems.contains { $0.contains(word) }, "\(problems)") }
    #expect(throws: TrainingError.self) { try ready(wrong.change).validate() }
  }

  @Test(
    "what goes together is taken",
    arguments: [
      { @Sendable in
        $0.patchClassLossWeight = 1
        $0.freezeBackbone = true
        $0.useBackboneLoRA = 2
      },
      {
        $0.answerLossWeight = 0
        $0.patchClassLossWeight = 1
        $0.freezeProjector = true
        $0.freezeLanguage = true
      },
      {
        $0.answerLossWeight = 0
        $0.namingLossWeightEnd = 1
      },
      {
        $0.namingLossWeight = 1
        $0.freezeBackbone = true
        $0.freezeProjector = true
      },
    ] as [@Sendable (inout TrainingConfiguration) -> Void])
  func taken(_ change: @Sendable (inout TrainingConfiguration) -> Void) {
    #expect(ready(change).problems() == [])
  }

  @Test func `The weight of naming goes along a line`() {
    let configuration = ready {
      $0.namingLossWeight = 1
      $0.namingLossWeightEnd = 0.5
    }
    let weights = (0..<5).map { configuration.namingLossWeight(after: $0, of: 5) }
    #expect(weights == [1, 0.875, 0.75, 0.625, 0.5])
    #expect(configuration.namingLossWeight(after: 0, of: 1) == 1)
    let even = ready { $0.namingLossWeight = 0.7 }
    #expect(even.namingLossWeight(after: 3, of: 9) == 0.7)
  }
}
