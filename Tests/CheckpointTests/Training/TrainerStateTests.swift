import Support
import Testing

@testable import Checkpoint

@Suite struct TrainerStateTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func write(_ state: TrainerState) throws {
    for (name, bytes) in state.files { try folder.write(name, bytes) }
  }

  @Test func `a state is read as it was written`() throws {
    var state = TrainerState(
      globalStep: 200, epoch: 0.5, maxSteps: 400, epochs: 1.5, trainBatchSize: 8,
      saveSteps: 200, tokensSeen: 1 << 40, totalFLOPs: 1.5e21, seed: .max, updates: 199,
      data: .init(epoch: 1, samples: 77, digest: "d\u{1}\"é"), configurationDigest: "abc",
      notes: ["a": "b", "": "💾"])
    state.log = (1...200).map {
      .init(
        step: $0, epoch: Double($0) / 400, loss: $0 == 3 ? .infinity : 1 / Double($0),
        learningRate: 1e-5 * Double($0), gradientNorm: $0.isMultiple(of: 2) ? 0.1 : nil)
    }
    try write(state)
    #expect(try TrainerState.load(folder: folder.path) == state)
  }

  @Test func `not a number stays so`() throws {
    try write(
      TrainerState(log: [.init(step: 1, epoch: 0, loss: .nan, learningRate: 0)]))
    #expect(try TrainerState.load(folder: folder.path).log[0].loss.isNaN)
  }

  @Test func `the log is bounded`() throws {
    let entry = TrainerState.LogEntry(step: 1, epoch: 0, loss: 2, learningRate: 0)
    var state = TrainerState(log: Array(repeating: entry, count: 30_000))
    state.log[29_999].step = 5
    try write(state)
    let read = try TrainerState.load(folder: folder.path)
    #expect(read.log.count == TrainerState.maximumLogEntries)
    #expect(read.log.last?.step == 5)
  }

  @Test func `the files of transformers' Trainer are read`() throws {
    try write(TrainerState())
    try folder.write(
      "trainer_state.json",
      """
      {"best_metric": null, "epoch": 2.0, "global_step": 4, "is_world_process_zero": true,
       "log_history": [{"epoch": 1.0, "learning_rate": 5e-05, "loss": 2.5, "step": 2},
         {"epoch": 2.0, "eval_loss": 1.0, "step": 4},
         {"epoch": 2.0, "step": 4, "total_flos": 0, "train_loss": 2.0}],
       "max_steps": 4, "num_train_epochs": 2, "total_flos": 10.0, "trial_params": {"x": [1]}}
      """)
    let state = try TrainerState.load(folder: folder.path)
    #expect(state.globalStep == 4 && state.maxSteps == 4 && state.log.count == 1)
    #expect(state.log[0].learningRate == 5e-5)
  }

  @Test(arguments: [
    "", "{}", #"{"global_step":-1}"#, #"{"global_step":1e3}"#, #"{"global_step":"1"}"#,
    #"{"global_step":99999999999999999999}"#, #"{"global_step":1,"log_history":{}}"#,
    #"{"global_step":1,"log_history":[1]}"#, #"{"global_step":1,"epoch":-1}"#,
    #"{"global_step":1,"max_steps":[]}"#,
  ])
  func `a trainer's state that is none is refused`(text: String) throws {
    try write(TrainerState())
    try folder.write("trainer_state.json", text)
    #expect(throws: CheckpointError.self) { try TrainerState.load(folder: folder.path) }
  }

  @Test(arguments: [
    "{}", #"{"seed":1,"updates":1,"data":{"epoch":0,"samples":0}}"#,
    #"{"seed":"-1","updates":1,"data":{"epoch":0,"samples":0}}"#,
    #"{"seed":"1","updates":-1,"data":{"epoch":0,"samples":0}}"#,
    #"{"seed":"1","updates":1,"data":{"epoch":0}}"#, #"{"seed":"1","updates":1,"data":3}"#,
    #"{"seed":"1","updates":1,"data":{"epoch":0,"samples":0},"notes":{"a":1}}"#,
  ])
  func `a run's state that is none is refused`(text: String) throws {
    try write(TrainerState())
    try folder.write("run_state.json", text)
    #expect(throws: CheckpointError.self) { try TrainerState.load(folder: folder.path) }
  }
}
