import Checkpoint
import Testing
import Training

@testable import Sequencer

/// Which settings of a checkpoint keep a run from going on.
@Suite struct ResumeSettingsTests {
  /// The state that a run of the configuration leaves, but for some notes.
  private func state(
    _ configuration: TrainingConfiguration, without names: Set<String> = [], digest: String? = nil
  ) -> TrainerState {
    var notes = ["model": "abc"]
    for (name, value) in configuration.numericSettings where !names.contains(name) {
      notes["setting." + name] = value
    }
    return TrainerState(
      configurationDigest: digest ?? configuration.numericDigest, notes: notes)
  }

  @Test func `The same settings go on, and others are named`() {
    var configuration = TrainingConfiguration()
    let state = state(configuration)
    #expect(configuration.differences(from: state).isEmpty)
    configuration.saveSteps = 7
    #expect(configuration.differences(from: state).isEmpty)
    configuration.namingLossWeight = 0.5
    #expect(configuration.differences(from: state) == ["naming_loss_weight 0.0, not 0.5"])
  }

  @Test func `A setting that is newer than the checkpoint had its default`() {
    var configuration = TrainingConfiguration()
    let old = state(configuration, without: ["naming_loss_weight"], digest: "another")
    #expect(configuration.differences(from: old).isEmpty)
    configuration.namingLossWeight = 0.5
    #expect(configuration.differences(from: old) == ["naming_loss_weight 0.0, not 0.5"])
  }

  @Test func `A setting that nobody knows is another one`() {
    let configuration = TrainingConfiguration()
    var later = state(configuration, digest: "another")
    later.notes["setting.unknown"] = "1"
    #expect(configuration.differences(from: later).count == 1)
    let silent = TrainerState(configurationDigest: "another", notes: [:])
    #expect(configuration.differences(from: silent).count == 1)
    let same = TrainerState(configurationDigest: configuration.numericDigest, notes: [:])
    #expect(configuration.differences(from: same).isEmpty)
  }
}
