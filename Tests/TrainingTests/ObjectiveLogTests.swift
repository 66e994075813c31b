import Testing

@testable import Training

@Suite struct ObjectiveLogTests {
  @Test func `The parts of the loss are in the line where there are any`() throws {
    var log = TrainingLog(step: 2, epoch: 0.5, loss: 3, learningRate: 1e-3, gradNorm: 1)
    #expect(!log.line.contains("answer_loss") && !log.line.contains("naming"))
    log.answerLoss = 1.5
    log.patchClassLoss = 0.25
    log.patchAccuracy = 0.75
    log.namingLoss = 4
    #expect(
      log.line.contains(
        #""answer_loss": 1.5, "patch_class_loss": 0.25, "patch_accuracy": 0.75, "naming_loss": 4.0"#
      ))
    let read = try TrainingLog(line: log.line)
    #expect(read == log && read.patchAccuracy == 0.75)
    let tags = log.scalars.map(\.tag)
    for name in ["answer_loss", "patch_class_loss", "patch_accuracy", "naming_loss"] {
      #expect(tags.contains("train/" + name))
    }
  }
}
