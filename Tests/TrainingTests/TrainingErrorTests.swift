import Testing

@testable import Training

@Suite struct TrainingErrorTests {
  @Test(
    "errors say what was found, and what to do",
    arguments: [
      (
        TrainingError.unknownSetting(name: "lrr", nearest: "lr"),
        "\"lrr\" is no setting of a training run; did you mean \"lr\"?"
      ),
      (
        .unknownSetting(name: "x", nearest: nil),
        "\"x\" is no setting of a training run; see `chiasm train --help`"
      ),
      (
        .repeatedSetting(name: "lr", also: "learning_rate"),
        "\"lr\" and \"learning_rate\" set the same thing twice; leave one out"
      ),
      (
        .wrongType(setting: "seed", found: "1.5", expected: "a whole number"),
        "seed is 1.5, which is not a whole number; write a whole number"
      ),
      (
        .unknownValue(setting: "decay", found: "no", choices: ["all", "hf"]),
        "decay is \"no\"; choose one of all, hf"
      ),
      (
        .batchNotDivisible(globalBatchSize: 8, microBatchSize: 3),
        "a global batch of 8 samples does not divide into micro-batches of 3; give a "
          + "micro_batch_size that divides 8"
      ),
      (
        .invalidSplit(part: "language model", stages: 9, layers: 4),
        "the language model has 4 layers, which do not make 9 stages; give a number from 1 to 4"
      ),
      (
        .sampleTooLong(key: 3, tokens: 9, limit: 8),
        "sample 3 has 9 tokens, and 8 are allowed; truncate it, or raise max_seq_length"
      ),
      (
        .skipOutOfRange(stage: 0, microBatch: 9, stages: 2, microBatches: 4),
        "micro-batch 9 of virtual stage 0 cannot be skipped in a schedule of 2 virtual stages "
          + "and 4 micro-batches"
      ),
      (
        .diskFull(path: "/x"), "/x: the disk is full; free space or write to another disk"
      ),
      (
        .tooManyUnderWay(microBatches: 9, limit: 8),
        "schedule gpipe has all 9 micro-batches of a step under way at once, and a mesh takes 8; "
          + "give a larger --micro-batch-size, a smaller --global-batch-size, or choose schedule "
          + "1f1b"
      ),
    ])
  func text(error: TrainingError, text: String) {
    #expect("\(error)" == text)
  }

  @Test("a trace too large to read is refused")
  func largeTrace() {
    let error = TrainingError.traceTooLarge(found: 9, limit: 8)
    #expect("\(error)" == "the trace has 9 bytes, and 8 are read at most; trace fewer steps")
  }
}
