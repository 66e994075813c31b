extension TrainingConfiguration {
  /// Whether the answers are part of the loss.
  public var learnsAnswers: Bool { answerLossWeight > 0 }
  /// Whether the classes of patches are.
  public var learnsPatchClasses: Bool { patchClassLossWeight > 0 }
  /// Whether the naming of image rows is, in any step.
  public var learnsNaming: Bool { namingLossWeight > 0 || namingLossWeightEnd ?? 0 > 0 }
  /// Whether what pictures show is read.
  public var readsClasses: Bool { learnsPatchClasses || learnsNaming }

  /// What the naming of image rows counts in the step after `done` of `steps`: along a line from the
  /// first to the last.
  public func namingLossWeight(after done: Int, of steps: Int) -> Double {
    guard let end = namingLossWeightEnd else { return namingLossWeight }
    return namingLossWeight
      + (end - namingLossWeight) * Double(done) / Double(max(1, steps - 1))
  }

  /// What is wrong with the parts of the loss.
  var objectives: [TrainingError] {
    var problems: [TrainingError] = []
    let weights = [
      ("answer_loss_weight", answerLossWeight), ("patch_class_loss_weight", patchClassLossWeight),
      ("naming_loss_weight", namingLossWeight),
      ("naming_loss_weight_end", namingLossWeightEnd ?? 0),
    ]
    for (name, weight) in weights where !(weight >= 0 && weight <= 1e6) {
      problems.append(
        .outOfRange(setting: name, found: "\(weight)", allowed: "a number from 0 to 1000000"))
    }
    guard problems.isEmpty else { return problems }
    if !learnsAnswers, !readsClasses { problems.append(.noLoss) }
    let isVisionFrozen = freezeBackbone && useBackboneLoRA <= 0
    if learnsPatchClasses, isVisionFrozen {
      problems.append(
        .conflictingSettings(
          "patch_class_loss_weight \(patchClassLossWeight)", "freeze_backbone",
          reason: "the classes of patches teach the vision encoder; leave one out, or give "
            + "use_backbone_lora a rank"))
    }
    // With adapters the table stays as it is.
    if learnsNaming, isVisionFrozen, freezeProjector, freezeLanguage || useLanguageLoRA > 0 {
      problems.append(
        .conflictingSettings(
          "naming_loss_weight", "freeze_backbone, freeze_mlp and a frozen embedding table",
          reason: "naming teaches what makes image rows, and the table; leave one of them to be "
            + "trained"))
    }
    guard !learnsAnswers else { return problems }
    if !learnsNaming {
      for (name, isFrozen) in [("freeze_mlp", freezeProjector), ("freeze_llm", freezeLanguage)]
      where !isFrozen {
        problems.append(
          .conflictingSettings(
            "answer_loss_weight 0", "\(name) false",
            reason: "without answers and naming nothing would move that part; set \(name)"))
      }
    }
    if useLanguageLoRA > 0 {
      problems.append(
        .conflictingSettings(
          "answer_loss_weight 0", "use_llm_lora \(useLanguageLoRA)",
          reason: "without answers nothing would move the adapters; leave use_llm_lora out"))
    }
    return problems
  }
}
