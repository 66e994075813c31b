import ArgumentParser
import Training
import Yams

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// The settings of a training run as flags, under the names that InternVL and Hugging Face have
/// for them.
struct TrainSettings: ParsableArguments {
  @Option(help: ArgumentHelp("YAML file of settings; flags go first.", valueName: "file"))
  var config: String?

  @Option(
    help: ArgumentHelp(
      "Settings of a published run: "
        + TrainingRecipe.allCases.map(\.rawValue).joined(separator: ", ") + ".",
      valueName: "name"))
  var recipe: String?

  @Option(help: ArgumentHelp("Model folder to start from.", valueName: "folder"))
  var model: String?

  @Option(help: ArgumentHelp("Meta JSON file of the data.", valueName: "file"))
  var meta: String?

  @Option(help: ArgumentHelp("Folder for checkpoints and logs.", valueName: "folder"))
  var output: String?

  @Flag(help: "Go on from the latest whole checkpoint in the output folder, if there is one.")
  var resume = false

  @Option(help: ArgumentHelp("Samples of a step.", valueName: "n"))
  var globalBatchSize: String?

  @Option(
    name: [.long, .customLong("per-device-train-batch-size")],
    help: ArgumentHelp("Samples of a micro-batch.", valueName: "n"))
  var microBatchSize: String?

  @Option(help: ArgumentHelp("Passes over the data.", valueName: "n"))
  var numTrainEpochs: String?

  @Option(help: ArgumentHelp("Steps in all, instead of epochs.", valueName: "n"))
  var maxSteps: String?

  @Option(
    help: ArgumentHelp(
      "End after so many steps, resumable, the learning rate's schedule unchanged.",
      valueName: "n"))
  var stopAfter: String?

  @Option(help: ArgumentHelp("Tokens of a sample at most.", valueName: "n"))
  var maxSeqLength: String?

  @Option(help: ArgumentHelp("The highest.", valueName: "x"))
  var learningRate: String?

  @Option(
    help: ArgumentHelp("cosine, linear, constant or warmup_stable_decay.", valueName: "name"))
  var lrSchedulerType: String?

  @Option(help: ArgumentHelp("Share of the steps in which the rate rises.", valueName: "x"))
  var warmupRatio: String?

  @Option(help: ArgumentHelp("Instead of the ratio.", valueName: "n"))
  var warmupSteps: String?

  @Option(
    help: ArgumentHelp(
      "Share of the steps in which warmup_stable_decay falls to 0.", valueName: "x"))
  var decayRatio: String?

  @Option(help: ArgumentHelp("AdamW's.", valueName: "x"))
  var weightDecay: String?

  @Option(help: ArgumentHelp("all parameters, or hf: no biases and norms.", valueName: "which"))
  var decay: String?

  @Option(name: .customLong("adam-beta1"), help: ArgumentHelp(visibility: .hidden))
  var adamBeta1: String?

  @Option(name: .customLong("adam-beta2"), help: ArgumentHelp(visibility: .hidden))
  var adamBeta2: String?

  @Option(help: ArgumentHelp(visibility: .hidden))
  var adamEpsilon: String?

  @Option(help: ArgumentHelp("Gradients are clipped to this norm; 0: never.", valueName: "x"))
  var maxGradNorm: String?

  @Option(
    help: ArgumentHelp("tokens of the step, or micro-batch as the reference.", valueName: "by"))
  var lossWeighting: String?

  @Option(
    help: ArgumentHelp(
      "Weight of the answers in the loss; 0: no language stage works (default: 1).",
      valueName: "x"))
  var answerLossWeight: String?

  @Option(
    help: ArgumentHelp(
      "Weight of the classes of patches, which teach the last vision stage (default: 0).",
      valueName: "x"))
  var patchClassLossWeight: String?

  @Option(
    help: ArgumentHelp(
      "Weight of naming image rows by the words of what they show (default: 0).", valueName: "x"))
  var namingLossWeight: String?

  @Option(
    help: ArgumentHelp(
      "In the last step; on the way there it changes evenly (default: the same).", valueName: "x"))
  var namingLossWeightEnd: String?

  @Option(
    help: ArgumentHelp(
      "JSON file of the classes (default: classes.json beside the meta file).", valueName: "file"))
  var classes: String?

  @Flag(help: "The vision encoder stays as it is.")
  var freezeBackbone = false

  @Flag(help: "The projector stays as it is.")
  var freezeMlp = false

  @Flag(help: "The language model stays as it is.")
  var freezeLlm = false

  @Option(help: ArgumentHelp("Rank of adapters on the vision encoder.", valueName: "r"))
  var useBackboneLora: String?

  @Option(help: ArgumentHelp("Rank of adapters on the language model.", valueName: "r"))
  var useLlmLora: String?

  @Option(help: ArgumentHelp("Default: twice the rank.", valueName: "x"))
  var loraAlpha: String?

  @Option(help: ArgumentHelp("In adapters.", valueName: "x"))
  var loraDropout: String?

  @Option(help: ArgumentHelp("Of the last vision layer.", valueName: "x"))
  var dropPathRate: String?

  @Option(
    help: ArgumentHelp(
      "Compute activations again in the backward pass: true, false or selective.",
      valueName: "which"))
  var gradCheckpoint: String?

  @Option(help: ArgumentHelp("Of everything that is drawn.", valueName: "n"))
  var seed: String?

  @Flag(help: "Deal samples of like lengths to micro-batches.")
  var groupByLength = false

  @Flag(help: "Fill micro-batches with several samples up to the longest length.")
  var pack = false

  @Flag(help: "Pad every sample to the longest length, as the reference does.")
  var padToMax = false

  @Flag(help: "Train without the samples that are flawed, and say which.")
  var skipBad = false

  @Option(
    help: ArgumentHelp(
      "Hide the turns of a conversation from each other behind its pictures: true, false, or the "
        + "share of samples in which to.", valueName: "which"))
  var separateTurns: String?

  @Option(help: ArgumentHelp("Template, instead of the model's.", valueName: "name"))
  var convStyle: String?

  @Option(help: ArgumentHelp("Threads that read and decode.", valueName: "n"))
  var dataloaderNumWorkers: String?

  @Option(help: ArgumentHelp("gpipe, 1f1b, interleaved, zb-h1 or serial.", valueName: "name"))
  var schedule: String?

  @Option(
    help: ArgumentHelp(
      "Slices of layers in each language process, for interleaved.", valueName: "n"))
  var virtualStages: String?

  @Option(help: ArgumentHelp("Steps from checkpoint to checkpoint.", valueName: "n"))
  var saveSteps: String?

  @Option(help: ArgumentHelp("Checkpoints that are kept; 0: all.", valueName: "n"))
  var saveTotalLimit: String?

  @Option(help: ArgumentHelp("float32 or bfloat16; default: the model's.", valueName: "type"))
  var saveType: String?

  @Flag(help: "Keep every step in memory: a lost stage costs one step.")
  var replicaSnapshots = false

  @Option(
    help: ArgumentHelp("At a loss that is no number: stop, or skip the step.", valueName: "what"))
  var onNotFinite: String?

  @Option(
    help: ArgumentHelp(
      "When a checkpoint does not fit: stop, or go-on without.", valueName: "what"))
  var onDiskFull: String?

  @Option(help: ArgumentHelp("Write when each process did what.", valueName: "file"))
  var trace: String?

  /// What the flags say, under the settings' names.
  private var given: [(name: String, value: SettingValue)] {
    let texts: [(String, String?)] = [
      ("model", model), ("meta", meta), ("output", output),
      ("global_batch_size", globalBatchSize), ("micro_batch_size", microBatchSize),
      ("num_train_epochs", numTrainEpochs), ("max_steps", maxSteps), ("stop_after", stopAfter),
      ("max_seq_length", maxSeqLength), ("learning_rate", learningRate),
      ("lr_scheduler_type", lrSchedulerType), ("warmup_ratio", warmupRatio),
      ("warmup_steps", warmupSteps), ("decay_ratio", decayRatio),
      ("weight_decay", weightDecay), ("decay", decay),
      ("adam_beta1", adamBeta1), ("adam_beta2", adamBeta2), ("adam_epsilon", adamEpsilon),
      ("max_grad_norm", maxGradNorm), ("loss_weighting", lossWeighting),
      ("answer_loss_weight", answerLossWeight),
      ("patch_class_loss_weight", patchClassLossWeight),
      ("naming_loss_weight", namingLossWeight),
      ("naming_loss_weight_end", namingLossWeightEnd), ("classes", classes),
      ("use_backbone_lora", useBackboneLora), ("use_llm_lora", useLlmLora),
      ("lora_alpha", loraAlpha), ("lora_dropout", loraDropout),
      ("drop_path_rate", dropPathRate), ("grad_checkpoint", gradCheckpoint), ("seed", seed),
      ("separate_turns", separateTurns), ("template", convStyle),
      ("dataloader_num_workers", dataloaderNumWorkers),
      ("schedule", schedule), ("virtual_stages", virtualStages), ("save_steps", saveSteps),
      ("save_total_limit", saveTotalLimit), ("save_type", saveType),
      ("on_not_finite", onNotFinite), ("on_disk_full", onDiskFull), ("trace", trace),
    ]
    let flags = [
      ("resume", resume), ("freeze_backbone", freezeBackbone), ("freeze_mlp", freezeMlp),
      ("freeze_llm", freezeLlm), ("group_by_length", groupByLength), ("pack", pack),
      ("pad_to_max", padToMax), ("skip_bad", skipBad), ("replica_snapshots", replicaSnapshots),
    ]
    return texts.compactMap { name, text in text.map { (name, .text($0)) } }
      + flags.filter(\.1).map { ($0.0, .boolean(true)) }
  }

  /// The recipe's settings, changed by the file's, changed by the flags'; paths are absolute.
  ///
  /// - Throws: `TrainingError`; `ValidationError` for a file that is no YAML.
  func configuration() throws -> TrainingConfiguration {
    var configuration = TrainingConfiguration()
    if let recipe { configuration.apply(try TrainingRecipe(name: recipe)) }
    if let config { try configuration.apply(YAMLSettings.read(config)) }
    try configuration.apply(given)
    configuration.model = AbsolutePath.of(configuration.model)
    configuration.meta = AbsolutePath.of(configuration.meta)
    configuration.output = AbsolutePath.of(configuration.output)
    configuration.trace = configuration.trace.map(AbsolutePath.of)
    configuration.classes = configuration.classes.map(AbsolutePath.of)
    return configuration
  }
}

/// A YAML file of settings.
enum YAMLSettings {
  private static let limit = 1 << 20

  /// - Throws: `ValidationError` that names the file.
  static func read(_ path: String) throws -> [(name: String, value: SettingValue)] {
    let data: Data
    do {
      data = try Data(contentsOf: URL(filePath: path))
    } catch {
      let isMissing = !FileManager.default.fileExists(atPath: path)
      throw ValidationError("\(path) \(isMissing ? "is not there" : "cannot be read")")
    }
    guard data.count <= limit else {
      throw ValidationError("\(path) has \(data.count) bytes; settings have \(limit) at most")
    }
    let node: Node?
    do {
      node = try Yams.compose(yaml: String(decoding: data, as: UTF8.self))
    } catch {
      throw ValidationError("\(path) is no YAML: \(error)")
    }
    guard let node else { return [] }
    guard let mapping = node.mapping else {
      throw ValidationError("\(path) is no list of settings, as in `learning_rate: 1e-5`")
    }
    return try mapping.map { key, value in
      guard let name = key.string, let scalar = value.scalar else {
        throw ValidationError("\(path): a setting has one value; \(key.string ?? "one") has more")
      }
      return (name, setting(scalar))
    }
  }

  private static func setting(_ scalar: Node.Scalar) -> SettingValue {
    guard scalar.style == .plain || scalar.style == .any else { return .text(scalar.string) }
    let text = scalar.string
    if ["", "~", "null"].contains(text) { return .null }
    if ["true", "True"].contains(text) { return .boolean(true) }
    if ["false", "False"].contains(text) { return .boolean(false) }
    if let number = Int(text) { return .integer(number) }
    if let number = Double(text), number.isFinite { return .number(number) }
    return .text(text)
  }
}
