import Checkpoint
import InternVL

extension TrainingRun {
  /// Says, also in the line of the first step, whether the heads of patch classes go on from those
  /// of an earlier run.
  ///
  /// - Throws: `CheckpointError` when their file is damaged.
  func tellOfHeads() async throws {
    let groups = options.objectives.groups
    guard !groups.isEmpty else { return }
    let kept = try ObjectivesFolder.patchClasses(of: configuration.model)
    var origins: [String] = []
    for group in groups {
      let fits = kept?.fits(
        group.name, classes: group.classWeights.count, width: model.vision.hiddenSize)
      let origin =
        switch fits {
        case true?: "goes on from the model's"
        case false?: "is drawn anew: the model's has another shape, or there is none of that group"
        case nil: "is drawn anew: the model has none"
        }
      await events(.notice("patch classes: the head of \(group.name) \(origin)"))
      origins.append("\(group.name) \(origin)")
    }
    notes.append(("patch_heads", origins.joined(separator: "; ")))
  }
}
