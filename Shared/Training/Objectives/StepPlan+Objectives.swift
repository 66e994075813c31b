extension StepPlan {
  /// Lets the answers count `weight` times in the gradients; ``loss(sums:)`` stays theirs alone.
  /// Without any weight nothing of the texts is left but their lengths.
  public mutating func weighAnswers(_ weight: Double) {
    for index in microBatches.indices {
      answerScales[index] = microBatches[index].lossScale
      microBatches[index].lossScale *= weight
      guard weight == 0 else { continue }
      microBatches[index].ids = []
      microBatches[index].labels = []
      labelledRows[index] = 0
    }
  }

  /// Adds what a micro-batch's pictures show.
  public mutating func add(
    to microBatch: Int, patches: [PatchTargets], naming: NamingTargets?
  ) {
    microBatches[microBatch].patchTargets = patches
    microBatches[microBatch].namingTargets = naming
  }
}
