/// One setting of a run under its name in files: in snake_case, or the same in kebab-case.
struct Setting {
  var name: String
  /// Names that InternVL's and Hugging Face's arguments have for the same thing.
  var aliases: [String]
  var read: (TrainingConfiguration) -> SettingValue
  var write: (inout TrainingConfiguration, SettingValue) throws -> Void

  private typealias Path<Value> = WritableKeyPath<TrainingConfiguration, Value>

  private init<Value>(
    _ name: String, _ path: Path<Value>, _ aliases: [String], expected: String,
    from: @escaping (SettingValue) -> Value?, to: @escaping (Value) -> SettingValue
  ) {
    self.name = name
    self.aliases = aliases
    read = { to($0[keyPath: path]) }
    write = { configuration, value in
      guard let read = from(value) else {
        throw TrainingError.wrongType(setting: name, found: "\(value)", expected: expected)
      }
      configuration[keyPath: path] = read
    }
  }

  private static func text(_ name: String, _ path: Path<String>, _ aliases: String...) -> Setting {
    Setting(name, path, aliases, expected: "a text", from: \.asText, to: { .text($0) })
  }

  private static func optionalText(
    _ name: String, _ path: Path<String?>, _ aliases: String...
  ) -> Setting {
    Setting(
      name, path, aliases, expected: "a text", from: { $0 == .null ? .some(nil) : $0.asText },
      to: { $0.map { .text($0) } ?? .null })
  }

  private static func integer(_ name: String, _ path: Path<Int>, _ aliases: String...) -> Setting {
    Setting(
      name, path, aliases, expected: "a whole number", from: \.asInteger, to: { .integer($0) })
  }

  /// Nothing at all for null; and for numbers below `least`, which is how Hugging Face says none.
  private static func optionalInteger(
    _ name: String, _ path: Path<Int?>, noneBelow least: Int? = nil
  ) -> Setting {
    Setting(
      name, path, [], expected: "a whole number",
      from: { value in
        if value == .null { return .some(nil) }
        guard let number = value.asInteger else { return nil }
        if let least, number < least { return .some(nil) }
        return number
      }, to: { $0.map { .integer($0) } ?? .null })
  }

  private static func number(
    _ name: String, _ path: Path<Double>, _ aliases: String...
  ) -> Setting {
    Setting(name, path, aliases, expected: "a number", from: \.asNumber, to: { .number($0) })
  }

  private static func boolean(_ name: String, _ path: Path<Bool>, _ aliases: String...) -> Setting {
    Setting(name, path, aliases, expected: "true or false", from: \.asBoolean, to: { .boolean($0) })
  }

  private static func choice<Choice: RawRepresentable<String> & CaseIterable>(
    _ name: String, _ path: Path<Choice>, _ aliases: String..., also: [String: Choice] = [:]
  ) -> Setting {
    var setting = Setting(
      name, path, aliases, expected: "a text",
      from: { value in value.asText.flatMap { also[$0] ?? Choice(rawValue: $0) } },
      to: { .text($0.rawValue) })
    let write = setting.write
    setting.write = { configuration, value in
      if let text = value.asText, also[text] == nil, Choice(rawValue: text) == nil {
        throw TrainingError.unknownValue(
          setting: name, found: text, choices: Choice.allCases.map(\.rawValue))
      }
      try write(&configuration, value)
    }
    return setting
  }

  /// InternVL's `grad_checkpoint` is true or false.
  private static var recompute: Setting {
    var setting = choice("recompute", \.recompute, "grad_checkpoint", "gradient_checkpointing")
    let write = setting.write
    setting.write = { configuration, value in
      if let boolean = value.asBoolean {
        configuration.recompute = boolean ? .full : .none
      } else {
        try write(&configuration, value)
      }
    }
    return setting
  }

  /// All samples, none, or a share of them.
  private static var separateTurns: Setting {
    Setting(
      "separate_turns", \.separateTurns, [], expected: "true, false, or a share from 0 to 1",
      from: { value in value.asBoolean.map { $0 ? 1 : 0 } ?? value.asNumber },
      to: { $0 == 0 || $0 == 1 ? .boolean($0 == 1) : .number($0) })
  }

  private static var seed: Setting {
    Setting(
      "seed", \.seed, [], expected: "a whole number from 0 on",
      from: { value in
        if let text = value.asText { return UInt64(text) }
        return value.asInteger.flatMap { UInt64(exactly: $0) }
      },
      // JSON's numbers end before UInt64 does.
      to: { seed in Int(exactly: seed).map { .integer($0) } ?? .text("\(seed)") })
  }

  static var all: [Setting] {
    [
      text("model", \.model, "model_name_or_path"),
      text("meta", \.meta, "meta_path"),
      text("output", \.output, "output_dir"),
      boolean("resume", \.resume),
      integer("global_batch_size", \.globalBatchSize),
      integer("micro_batch_size", \.microBatchSize, "per_device_train_batch_size"),
      number("num_train_epochs", \.epochs, "epochs"),
      optionalInteger("max_steps", \.maxSteps, noneBelow: 1),
      optionalInteger("stop_after", \.stopAfter),
      integer("max_seq_length", \.maxSequenceLength, "max_sequence_length"),
      number("learning_rate", \.learningRate, "lr"),
      choice(
        "lr_scheduler_type", \.learningRateSchedule, "learning_rate_schedule",
        also: ["constant_with_warmup": .constant]),
      number("warmup_ratio", \.warmupRatio),
      optionalInteger("warmup_steps", \.warmupSteps, noneBelow: 1),
      number("decay_ratio", \.decayRatio),
      number("weight_decay", \.weightDecay),
      choice("decay", \.decay),
      number("adam_beta1", \.beta1, "beta1"),
      number("adam_beta2", \.beta2, "beta2"),
      number("adam_epsilon", \.epsilon, "epsilon"),
      number("max_grad_norm", \.maxGradientNorm),
      choice("loss_weighting", \.lossWeighting),
      number("answer_loss_weight", \.answerLossWeight),
      number("patch_class_loss_weight", \.patchClassLossWeight),
      number("naming_loss_weight", \.namingLossWeight),
      Setting(
        "naming_loss_weight_end", \.namingLossWeightEnd, [], expected: "a number",
        from: { $0 == .null ? .some(nil) : $0.asNumber }, to: { $0.map { .number($0) } ?? .null }),
      optionalText("classes", \.classes),
      boolean("freeze_backbone", \.freezeBackbone),
      boolean("freeze_mlp", \.freezeProjector, "freeze_projector"),
      boolean("freeze_llm", \.freezeLanguage, "freeze_language"),
      integer("use_backbone_lora", \.useBackboneLoRA),
      integer("use_llm_lora", \.useLanguageLoRA, "use_language_lora"),
      Setting(
        "lora_alpha", \.loraAlpha, [], expected: "a number",
        from: { $0 == .null ? .some(nil) : $0.asNumber }, to: { $0.map { .number($0) } ?? .null }),
      number("lora_dropout", \.loraDropout),
      number("drop_path_rate", \.dropPathRate),
      recompute,
      seed,
      boolean("group_by_length", \.groupByLength),
      boolean("pack", \.pack, "use_packed_ds"),
      boolean("pad_to_max", \.padToMax),
      boolean("skip_bad", \.skipBad),
      separateTurns,
      optionalText("template", \.template, "conv_style"),
      integer("dataloader_num_workers", \.dataloaderWorkers, "dataloader_workers"),
      choice("schedule", \.schedule),
      integer("virtual_stages", \.virtualStages),
      integer("save_steps", \.saveSteps),
      integer("save_total_limit", \.saveTotalLimit),
      optionalText("save_type", \.saveType),
      boolean("replica_snapshots", \.replicaSnapshots),
      choice("on_not_finite", \.onNotFinite),
      choice("on_disk_full", \.onDiskFull),
      optionalText("trace", \.trace),
    ]
  }
}

extension TrainingConfiguration {
  /// Names of all settings as files have them, in the order of ``settings``.
  public static var settingNames: [String] { Setting.all.map(\.name) }

  /// All settings under their names in files.
  public var settings: [(name: String, value: SettingValue)] {
    Setting.all.map { ($0.name, $0.read(self)) }
  }

  /// Changes what a file sets; all else stays as it is, and nothing changes when it throws.
  ///
  /// Names may be in snake_case or kebab-case, and those of InternVL's and Hugging Face's
  /// arguments where they mean the same (`per_device_train_batch_size` for `micro_batch_size`,
  /// a mesh being one device). `recipe` sets its settings first, wherever it stands.
  /// `gradient_accumulation_steps` makes the global batch, times the micro-batch.
  ///
  /// - Throws: ``TrainingError`` `unknownSetting`, `repeatedSetting`, `wrongType`, `unknownValue`,
  ///   `outOfRange`, `unknownRecipe`, `devicesDoNotFit`. Values that do not go together are for
  ///   ``validate()``.
  public mutating func apply(_ settings: [(name: String, value: SettingValue)]) throws {
    var result = self
    let known = Setting.all
    var byName: [String: Setting] = [:]
    for setting in known {
      for name in [setting.name] + setting.aliases { byName[name] = setting }
    }
    var seen: [String: String] = [:]
    var writes: [(Setting, SettingValue)] = []
    var accumulation: Int?
    for (given, value) in settings {
      let name = String(given.map { $0 == "-" ? "_" : $0 })
      let setting = byName[name]
      if let before = seen.updateValue(given, forKey: setting?.name ?? name) {
        throw TrainingError.repeatedSetting(name: before, also: given)
      }
      if let setting {
        writes.append((setting, value))
      } else if name == "recipe" {
        guard let text = value.asText else {
          throw TrainingError.wrongType(
            setting: "recipe", found: "\(value)", expected: "a recipe's name")
        }
        result.apply(try TrainingRecipe(name: text))
      } else if name == "gradient_accumulation_steps" {
        guard let steps = value.asInteger else {
          throw TrainingError.wrongType(
            setting: name, found: "\(value)", expected: "a whole number")
        }
        guard (1...1 << 20).contains(steps) else {
          throw TrainingError.outOfRange(setting: name, found: "\(steps)", allowed: "1 at least")
        }
        accumulation = steps
      } else {
        let names = byName.keys + ["recipe", "gradient_accumulation_steps"]
        throw TrainingError.unknownSetting(
          name: given, nearest: NearestName.of(name, in: names))
      }
    }
    for (setting, value) in writes { try setting.write(&result, value) }
    if let accumulation {
      let (samples, overflow) = result.microBatchSize.multipliedReportingOverflow(by: accumulation)
      if overflow || seen["global_batch_size"] != nil && samples != result.globalBatchSize {
        throw TrainingError.devicesDoNotFit(
          globalBatchSize: result.globalBatchSize, perDevice: result.microBatchSize,
          accumulation: accumulation)
      }
      result.globalBatchSize = samples
    }
    self = result
  }

  /// The defaults, changed by a file.
  public init(_ settings: [(name: String, value: SettingValue)]) throws {
    self.init()
    try apply(settings)
  }
}

// MARK: - JSON

extension TrainingConfiguration {
  /// Bytes of JSON that are read at most.
  static let jsonLimit = 1 << 20

  /// A JSON object of all settings.
  public var json: String {
    let members = settings.map { name, value in
      let text: String
      switch value {
      case .text(let string): text = JSONText.quoted(string)
      case .number(let number) where !number.isFinite:
        text = number.isNaN ? "NaN" : number > 0 ? "Infinity" : "-Infinity"
      default: text = "\(value)"
      }
      return "  \(JSONText.quoted(name)): \(text)"
    }
    return "{\n" + members.joined(separator: ",\n") + "\n}\n"
  }

  /// - Throws: ``TrainingError/invalidJSON(offset:reason:)``, and as ``apply(_:)`` does.
  public init(json: [UInt8]) throws {
    guard json.count <= TrainingConfiguration.jsonLimit else {
      throw TrainingError.invalidJSON(
        offset: TrainingConfiguration.jsonLimit, reason: "\(json.count) bytes of settings")
    }
    guard case .object(let members) = try JSONText.parse(json) else {
      throw TrainingError.invalidJSON(offset: 0, reason: "settings are no object")
    }
    let settings = try members.map { name, value -> (name: String, value: SettingValue) in
      switch value {
      case .null: (name, .null)
      case .boolean(let value): (name, .boolean(value))
      case .number(let value): (name, Int(exactly: value).map { .integer($0) } ?? .number(value))
      case .string(let value): (name, .text(value))
      case .array, .object:
        throw TrainingError.wrongType(
          setting: name, found: "a list or an object", expected: "a single value")
      }
    }
    try self.init(settings)
  }
}
