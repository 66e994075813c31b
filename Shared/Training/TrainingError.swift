/// Ways in which a training run cannot be described, scheduled or recorded.
public enum TrainingError: Error, Equatable, Sendable, CustomStringConvertible {
  // Settings of a run.
  case unknownSetting(name: String, nearest: String?)
  case repeatedSetting(name: String, also: String)
  case wrongType(setting: String, found: String, expected: String)
  case unknownValue(setting: String, found: String, choices: [String])
  case outOfRange(setting: String, found: String, allowed: String)
  case missingSetting(name: String, purpose: String)
  case batchNotDivisible(globalBatchSize: Int, microBatchSize: Int)
  case devicesDoNotFit(globalBatchSize: Int, perDevice: Int, accumulation: Int)
  case nothingTrained
  case noLoss
  case conflictingSettings(String, String, reason: String)
  case unknownRecipe(name: String, known: [String])
  // Schedules.
  case emptyPlacement
  case processWithoutStage(process: Int, processes: Int)
  case negativeProcess(stage: Int, process: Int)
  case noMicroBatches(found: Int)
  case skipOutOfRange(stage: Int, microBatch: Int?, stages: Int, microBatches: Int)
  case costsDoNotFit(found: Int, expected: Int)
  case invalidCost(stage: Int, found: Double)
  case deadlock(stuck: [String])
  case invalidSplit(part: String, stages: Int, layers: Int)
  // A step.
  case labelsDoNotFit(key: UInt64, ids: Int, labels: Int)
  case sampleTooLong(key: UInt64, tokens: Int, limit: Int)
  // Files.
  case invalidJSON(offset: Int, reason: String)
  case invalidTrace(event: Int, reason: String)
  case traceTooLarge(found: Int, limit: Int)
  case invalidLogLine(line: Int, reason: String)
  case cannotWrite(path: String, reason: String)
  case diskFull(path: String)
  case tooManyUnderWay(microBatches: Int, limit: Int)

  public var description: String {
    switch self {
    case .unknownSetting(let name, let nearest):
      let hint = nearest.map { "; did you mean \"\($0)\"?" } ?? "; see `chiasm train --help`"
      return "\"\(name)\" is no setting of a training run" + hint
    case .repeatedSetting(let name, let also):
      return "\"\(name)\" and \"\(also)\" set the same thing twice; leave one out"
    case .wrongType(let setting, let found, let expected):
      return "\(setting) is \(found), which is not \(expected); write \(expected)"
    case .unknownValue(let setting, let found, let choices):
      return "\(setting) is \"\(found)\"; choose one of \(choices.joined(separator: ", "))"
    case .outOfRange(let setting, let found, let allowed):
      return "\(setting) is \(found); give \(allowed)"
    case .missingSetting(let name, let purpose):
      return "\(name) is missing; give \(purpose)"
    case .batchNotDivisible(let globalBatchSize, let microBatchSize):
      return "a global batch of \(globalBatchSize) samples does not divide into micro-batches of "
        + "\(microBatchSize); give a micro_batch_size that divides \(globalBatchSize)"
    case .devicesDoNotFit(let globalBatchSize, let perDevice, let accumulation):
      return "per_device_train_batch_size \(perDevice) times gradient_accumulation_steps "
        + "\(accumulation) makes \(perDevice * accumulation) samples a step, and "
        + "global_batch_size says \(globalBatchSize); a mesh counts as one device, so leave "
        + "gradient_accumulation_steps out"
    case .nothingTrained:
      return "every part is frozen and none has LoRA, so there is nothing to train; leave out "
        + "one of freeze_backbone, freeze_mlp, freeze_llm, or give use_llm_lora a rank"
    case .noLoss:
      return "answer_loss_weight, patch_class_loss_weight and naming_loss_weight are all 0, so "
        + "that there is no loss; give one of them a weight"
    case .conflictingSettings(let first, let second, let reason):
      return "\(first) and \(second) do not go together: \(reason)"
    case .unknownRecipe(let name, let known):
      return "no recipe is named \"\(name)\"; choose one of \(known.joined(separator: ", "))"
    case .emptyPlacement:
      return "a schedule without a stage; place one virtual stage at least on process 0"
    case .processWithoutStage(let process, let processes):
      return "process \(process) of \(processes) has no virtual stage; number the processes from "
        + "0 without gaps"
    case .negativeProcess(let stage, let process):
      return "virtual stage \(stage) is placed on process \(process); number processes from 0"
    case .noMicroBatches(let found):
      return "a step of \(found) micro-batches; give 1 at least"
    case .skipOutOfRange(let stage, let microBatch, let stages, let microBatches):
      let what = microBatch.map { "micro-batch \($0) of virtual stage \(stage)" }
      return "\(what ?? "\(stage) lists of skipped micro-batches") cannot be skipped in a "
        + "schedule of \(stages) virtual stages and \(microBatches) micro-batches"
    case .costsDoNotFit(let found, let expected):
      return "costs are given for \(found), and the schedule has \(expected); give one for each"
    case .invalidCost(let stage, let found):
      return "virtual stage \(stage) costs \(found); a cost is finite and not negative"
    case .deadlock(let stuck):
      return "the schedule cannot go on: \(stuck.joined(separator: ", ")) wait for each other"
    case .invalidSplit(let part, let stages, let layers):
      return "the \(part) has \(layers) layers, which do not make \(stages) stages; "
        + "give a number from 1 to \(layers)"
    case .labelsDoNotFit(let key, let ids, let labels):
      return "sample \(key) has \(ids) tokens and \(labels) labels; give a label for each token"
    case .sampleTooLong(let key, let tokens, let limit):
      return "sample \(key) has \(tokens) tokens, and \(limit) are allowed; truncate it, or raise "
        + "max_seq_length"
    case .invalidJSON(let offset, let reason):
      return "no JSON at byte \(offset): \(reason)"
    case .invalidTrace(let event, let reason):
      return "event \(event) of the trace: \(reason); write the trace anew with `--trace`"
    case .traceTooLarge(let found, let limit):
      return "the trace has \(found) bytes, and \(limit) are read at most; trace fewer steps"
    case .invalidLogLine(let line, let reason):
      return "line \(line) of the training log: \(reason)"
    case .cannotWrite(let path, let reason):
      return "\(path) cannot be written: \(reason)"
    case .diskFull(let path):
      return "\(path): the disk is full; free space or write to another disk"
    case .tooManyUnderWay(let microBatches, let limit):
      return
        "schedule gpipe has all \(microBatches) micro-batches of a step under way at once, and "
        + "a mesh takes \(limit); give a larger --micro-batch-size, a smaller --global-batch-size, "
        + "or choose schedule 1f1b"
    }
  }
}
