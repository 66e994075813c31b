import Testing

@testable import Training

@Suite struct TrainingConfigurationTests {
  private func ready() -> TrainingConfiguration {
    var configuration = TrainingConfiguration()
    configuration.model = "models/small"
    configuration.meta = "meta.json"
    configuration.output = "out"
    return configuration
  }

  @Test("the recipe of the release is the seed's table", arguments: ["", "INTERNVL-Chat-V1.2"])
  func release(name: String) throws {
    let recipe = name.isEmpty ? .internVLChatV12 : try TrainingRecipe(name: name)
    let configuration = TrainingConfiguration(recipe)
    #expect(configuration.globalBatchSize == 512)
    #expect(configuration.microBatchSize == 8)
    #expect(configuration.learningRate == 1e-5)
    #expect(configuration.learningRateSchedule == .cosine)
    #expect(configuration.epochs == 1)
    #expect(configuration.maxSequenceLength == 2048)
    #expect(configuration.weightDecay == 0.05)
    #expect(configuration.warmupRatio == 0.03)
    #expect(configuration.dropPathRate == 0.4)
    #expect(
      !configuration.freezeBackbone && !configuration.freezeProjector
        && !configuration.freezeLanguage)
    #expect(configuration.recompute == .full)
    #expect(configuration.decay == .hf)
    #expect(configuration.saveSteps == 200 && configuration.saveTotalLimit == 1)
    #expect(!configuration.groupByLength)
  }

  @Test("the recipes for one's own data freeze what theirs freeze")
  func secondFineTunes() {
    let full = TrainingConfiguration(.secondFineTune)
    #expect(full.globalBatchSize == 128 && full.microBatchSize == 4)
    #expect(full.freezeBackbone && !full.freezeProjector && !full.freezeLanguage)
    #expect(full.dropPathRate == 0 && full.groupByLength && full.decay == .all)
    let adapters = TrainingConfiguration(.secondFineTuneLoRA)
    #expect(adapters.globalBatchSize == 16 && adapters.useLanguageLoRA == 16)
    #expect(adapters.freezeBackbone && adapters.freezeProjector && adapters.freezeLanguage)
    #expect(adapters.loraDropout == 0.05 && adapters.loraAlpha == nil)
  }

  @Test("every recipe can be run", arguments: TrainingRecipe.allCases)
  func recipesAreValid(_ recipe: TrainingRecipe) throws {
    var configuration = ready()
    configuration.apply(recipe)
    #expect(configuration.problems() == [])
    try configuration.validate()
  }

  struct Problem: Sendable {
    var change: @Sendable (inout TrainingConfiguration) -> Void
    var error: TrainingError
  }

  @Test(
    "what makes no run is refused, and what to do is said",
    arguments: [
      Problem(
        change: { $0.model = "" },
        error: .missingSetting(name: "model", purpose: "the folder of the model to start from")),
      Problem(
        change: { $0.meta = "" },
        error: .missingSetting(name: "meta", purpose: "the meta JSON file of the data")),
      Problem(
        change: { $0.output = "" },
        error: .missingSetting(
          name: "output", purpose: "the folder that checkpoints and logs go to")),
      Problem(
        change: { $0.globalBatchSize = 0 },
        error: .outOfRange(
          setting: "global_batch_size", found: "0", allowed: "a number from 1 to 1048576")),
      Problem(
        change: { $0.microBatchSize = -3 },
        error: .outOfRange(
          setting: "micro_batch_size", found: "-3", allowed: "a number from 1 to 65536")),
      Problem(
        change: { $0.microBatchSize = 3 },
        error: .batchNotDivisible(globalBatchSize: 512, microBatchSize: 3)),
      Problem(
        change: { $0.epochs = .nan },
        error: .outOfRange(
          setting: "num_train_epochs", found: "nan", allowed: "a number above 0, 1000000 at most")),
      Problem(
        change: { $0.maxSequenceLength = 1 },
        error: .outOfRange(
          setting: "max_seq_length", found: "1", allowed: "a number from 2 to 1048576")),
      Problem(
        change: { $0.learningRate = .infinity },
        error: .outOfRange(
          setting: "learning_rate", found: "inf", allowed: "a number from 0 to 10")),
      Problem(
        change: { $0.warmupRatio = 3 },
        error: .outOfRange(
          setting: "warmup_ratio", found: "3.0", allowed: "a share from 0 to 1")),
      Problem(
        change: { $0.separateTurns = 1.5 },
        error: .outOfRange(
          setting: "separate_turns", found: "1.5", allowed: "true, false, or a share from 0 to 1")),
      Problem(
        change: { $0.decayRatio = -0.1 },
        error: .outOfRange(
          setting: "decay_ratio", found: "-0.1", allowed: "a share from 0 to 1")),
      Problem(
        change: { $0.beta2 = 1 },
        error: .outOfRange(
          setting: "adam_beta2", found: "1.0", allowed: "a number from 0 to below 1")),
      Problem(
        change: { $0.epsilon = 0 },
        error: .outOfRange(setting: "adam_epsilon", found: "0.0", allowed: "a number above 0")),
      Problem(
        change: { $0.dropPathRate = 1 },
        error: .outOfRange(
          setting: "drop_path_rate", found: "1.0", allowed: "a rate from 0 to below 1")),
      Problem(
        change: { $0.loraAlpha = 0 },
        error: .outOfRange(setting: "lora_alpha", found: "0.0", allowed: "a number above 0")),
      Problem(
        change: { $0.useLanguageLoRA = -1 },
        error: .outOfRange(
          setting: "use_llm_lora", found: "-1", allowed: "a rank from 1, or 0 for none")),
      Problem(
        change: {
          $0.freezeBackbone = true
          $0.freezeProjector = true
          $0.freezeLanguage = true
        }, error: .nothingTrained),
      Problem(
        change: {
          $0.freezeBackbone = true
          $0.dropPathRate = 0.5
        },
        error: .conflictingSettings(
          "freeze_backbone", "drop_path_rate 0.5",
          reason: "a frozen vision encoder drops no paths; set drop_path_rate to 0")),
      Problem(
        change: {
          $0.pack = true
          $0.padToMax = true
        },
        error: .conflictingSettings(
          "pack", "pad_to_max",
          reason: "packing fills a micro-batch up to max_seq_length with whole samples, padding "
            + "fills each sample; leave one out")),
      Problem(
        change: {
          $0.pack = true
          $0.groupByLength = true
        },
        error: .conflictingSettings(
          "pack", "group_by_length",
          reason: "packing fills micro-batches from any lengths; leave one out")),
      Problem(
        change: { $0.virtualStages = 2 },
        error: .conflictingSettings(
          "virtual_stages 2", "schedule 1f1b",
          reason: "only the interleaved schedule has several slices in a process; choose "
            + "schedule interleaved, or virtual_stages 1")),
      Problem(
        change: {
          $0.schedule = .gpipe
          $0.globalBatchSize = 2048
          $0.microBatchSize = 2
        },
        error: .tooManyUnderWay(microBatches: 1024, limit: 1000)),
      Problem(
        change: { $0.schedule = .interleaved },
        error: .conflictingSettings(
          "schedule interleaved", "virtual_stages 1",
          reason: "interleaving needs several slices in a process; give virtual_stages 2 or more, "
            + "or choose schedule 1f1b")),
      Problem(
        change: { $0.saveType = "float64" },
        error: .unknownValue(
          setting: "save_type", found: "float64", choices: ["float32", "bfloat16"])),
      Problem(
        change: { $0.saveSteps = 0 },
        error: .outOfRange(
          setting: "save_steps", found: "0", allowed: "a number from 1 to 4294967296")),
    ])
  func problems(_ problem: Problem) throws {
    var configuration = ready()
    #expect(configuration.problems() == [])
    problem.change(&configuration)
    #expect(configuration.problems() == [problem.error])
    #expect(throws: problem.error) { try configuration.validate() }
    #expect(!"\(problem.error)".isEmpty)
  }

  @Test("all problems are found at once")
  func several() {
    var configuration = TrainingConfiguration()
    configuration.learningRate = -1
    #expect(configuration.problems().count == 4)
  }
}

@Suite struct TrainingSettingsTests {
  private typealias Settings = [(name: String, value: SettingValue)]

  @Test("snake case, kebab case and the names of scripts are taken")
  func names() throws {
    let configuration = try TrainingConfiguration([
      ("model-name-or-path", .text("m")), ("meta_path", .text("d.json")),
      ("output_dir", .text("o")), ("per_device_train_batch_size", .integer(4)),
      ("gradient_accumulation_steps", .integer(8)), ("learning-rate", .text("1e-5")),
      ("num_train_epochs", .integer(2)), ("max_steps", .integer(-1)),
      ("grad_checkpoint", .text("True")), ("freeze_llm", .boolean(true)),
      ("lr_scheduler_type", .text("constant_with_warmup")), ("seed", .integer(7)),
      ("conv_style", .text("Hermes-2")), ("warmup_steps", .integer(0)),
      ("save_type", .null), ("lora_alpha", .number(3.5)), ("schedule", .text("zb-h1")),
    ])
    #expect(configuration.model == "m" && configuration.meta == "d.json")
    #expect(configuration.output == "o")
    #expect(configuration.microBatchSize == 4 && configuration.globalBatchSize == 32)
    #expect(configuration.learningRate == 1e-5)
    #expect(configuration.epochs == 2 && configuration.maxSteps == nil)
    #expect(configuration.recompute == .full && configuration.freezeLanguage)
    #expect(configuration.learningRateSchedule == .constant && configuration.seed == 7)
    #expect(configuration.template == "Hermes-2" && configuration.warmupSteps == nil)
    #expect(configuration.saveType == nil && configuration.loraAlpha == 3.5)
    #expect(configuration.schedule == .zeroBubble)
  }

  @Test("checkpointing of activations is on, off, or one of the ways")
  func recompute() throws {
    func recompute(_ value: SettingValue) throws -> Recompute {
      try TrainingConfiguration([("grad_checkpoint", value)]).recompute
    }
    #expect(try recompute(.boolean(false)) == .none)
    #expect(try recompute(.boolean(true)) == .full)
    #expect(try recompute(.text("selective")) == .selective)
  }

  @Test("turns are separate in all samples, in none, or in a share of them")
  func separateTurns() throws {
    func share(_ value: SettingValue) throws -> Double {
      try TrainingConfiguration([("separate_turns", value)]).separateTurns
    }
    #expect(try share(.boolean(true)) == 1 && share(.boolean(false)) == 0)
    #expect(try share(.text("true")) == 1 && share(.text("0.8")) == 0.8)
    #expect(try share(.number(0.8)) == 0.8 && share(.integer(1)) == 1)
    for value in [SettingValue.text("some"), .null] {
      let error = TrainingError.wrongType(
        setting: "separate_turns", found: "\(value)",
        expected: "true, false, or a share from 0 to 1")
      #expect(throws: error) { try share(value) }
    }
    var configuration = TrainingConfiguration()
    for share in [0, 0.8, 1] {
      configuration.separateTurns = share
      #expect(try TrainingConfiguration(json: Array(configuration.json.utf8)) == configuration)
    }
  }

  @Test("a recipe comes first, wherever it stands, and the rest changes it")
  func recipe() throws {
    let configuration = try TrainingConfiguration([
      ("global_batch_size", .integer(64)), ("recipe", .text("internvl-chat-v1.2")),
    ])
    #expect(configuration.globalBatchSize == 64 && configuration.dropPathRate == 0.4)
  }

  struct Refusal: Sendable {
    var settings: [(name: String, value: SettingValue)]
    var error: TrainingError
  }

  @Test(
    "settings that mean nothing are refused, and change nothing",
    arguments: [
      Refusal(
        settings: [("learing_rate", .number(1))],
        error: .unknownSetting(name: "learing_rate", nearest: "learning_rate")),
      Refusal(
        settings: [("global-bacth-size", .integer(1))],
        error: .unknownSetting(name: "global-bacth-size", nearest: "global_batch_size")),
      Refusal(
        settings: [("zzzzzzzz", .null)], error: .unknownSetting(name: "zzzzzzzz", nearest: nil)),
      Refusal(
        settings: [("lr", .number(1)), ("learning-rate", .number(2))],
        error: .repeatedSetting(name: "lr", also: "learning-rate")),
      Refusal(
        settings: [("save_steps", .text("often"))],
        error: .wrongType(
          setting: "save_steps", found: "\"often\"", expected: "a whole number")),
      Refusal(
        settings: [("save_steps", .number(1.5))],
        error: .wrongType(setting: "save_steps", found: "1.5", expected: "a whole number")),
      Refusal(
        settings: [("freeze_mlp", .integer(1))],
        error: .wrongType(setting: "freeze_mlp", found: "1", expected: "true or false")),
      Refusal(
        settings: [("seed", .integer(-1))],
        error: .wrongType(
          setting: "seed", found: "-1", expected: "a whole number from 0 on")),
      Refusal(
        settings: [("model", .null)],
        error: .wrongType(setting: "model", found: "null", expected: "a text")),
      Refusal(
        settings: [("schedule", .text("gpip"))],
        error: .unknownValue(
          setting: "schedule", found: "gpip",
          choices: ["gpipe", "1f1b", "interleaved", "zb-h1", "serial"])),
      Refusal(
        settings: [("recipe", .text("v1.3"))],
        error: .unknownRecipe(
          name: "v1.3",
          known: [
            "internvl-chat-v1.2", "internvl-chat-v1.2-finetune", "internvl-chat-v1.2-finetune-lora",
          ])),
      Refusal(
        settings: [("recipe", .integer(1))],
        error: .wrongType(setting: "recipe", found: "1", expected: "a recipe's name")),
      Refusal(
        settings: [("gradient_accumulation_steps", .integer(0))],
        error: .outOfRange(
          setting: "gradient_accumulation_steps", found: "0", allowed: "1 at least")),
      Refusal(
        settings: [("gradient_accumulation_steps", .boolean(true))],
        error: .wrongType(
          setting: "gradient_accumulation_steps", found: "true", expected: "a whole number")),
      Refusal(
        settings: [
          ("per_device_train_batch_size", .integer(4)), ("global_batch_size", .integer(10)),
          ("gradient_accumulation_steps", .integer(2)),
        ], error: .devicesDoNotFit(globalBatchSize: 10, perDevice: 4, accumulation: 2)),
    ])
  func refusals(_ refusal: Refusal) {
    var configuration = TrainingConfiguration()
    #expect(throws: refusal.error) {
      try configuration.apply([("meta", .text("m"))] + refusal.settings)
    }
    #expect(configuration == TrainingConfiguration())
    #expect(throws: refusal.error) { try TrainingConfiguration(refusal.settings) }
  }

  private func unusual() -> TrainingConfiguration {
    var configuration = TrainingConfiguration(.secondFineTuneLoRA)
    configuration.model = "a \"model\"\n"
    configuration.learningRate = 0.1 + 0.2
    configuration.maxSteps = 12
    configuration.stopAfter = 5
    configuration.saveType = "bfloat16"
    configuration.loraAlpha = 8
    configuration.seed = .max
    configuration.schedule = .interleaved
    configuration.virtualStages = 3
    configuration.recompute = .selective
    configuration.trace = "t.json"
    configuration.warmupSteps = 4
    configuration.learningRateSchedule = .warmupStableDecay
    configuration.decayRatio = 0.2
    configuration.separateTurns = 0.8
    return configuration
  }

  @Test("settings written are read back the same")
  func roundTrip() throws {
    for configuration in [TrainingConfiguration(), unusual()] {
      #expect(try TrainingConfiguration(configuration.settings) == configuration)
      #expect(try TrainingConfiguration(json: Array(configuration.json.utf8)) == configuration)
    }
    #expect(
      TrainingConfiguration.settingNames.count == Set(TrainingConfiguration.settingNames).count)
  }

  @Test("a setting has a name of its own, and no alias is another's name")
  func distinctNames() {
    let names = Setting.all.flatMap { [$0.name] + $0.aliases }
    #expect(names.count == Set(names).count)
    #expect(names.allSatisfy { !$0.contains("-") })
  }

  @Test("JSON that is no object of single values is refused")
  func badJSON() {
    #expect(throws: TrainingError.invalidJSON(offset: 0, reason: "settings are no object")) {
      try TrainingConfiguration(json: Array("[]".utf8))
    }
    let list = TrainingError.wrongType(
      setting: "model", found: "a list or an object", expected: "a single value")
    #expect(throws: list) { try TrainingConfiguration(json: Array("{\"model\": [1]}".utf8)) }
    #expect(throws: TrainingError.self) { try TrainingConfiguration(json: Array("{".utf8)) }
    #expect(throws: TrainingError.self) {
      try TrainingConfiguration(json: Array(repeating: 32, count: (1 << 20) + 1))
    }
  }
}
