extension TrainingConfiguration {
  /// - Throws: the first of ``problems()``.
  public func validate() throws {
    if let problem = problems().first { throw problem }
  }

  /// Everything that keeps these settings from making a run, each with what to do about it.
  public func problems() -> [TrainingError] {
    missing + sizes + rates + parts + objectives + choices
  }

  private var missing: [TrainingError] {
    var problems: [TrainingError] = []
    func require(_ text: String, _ name: String, _ purpose: String) {
      if text.isEmpty { problems.append(.missingSetting(name: name, purpose: purpose)) }
    }
    require(model, "model", "the folder of the model to start from")
    require(meta, "meta", "the meta JSON file of the data")
    require(output, "output", "the folder that checkpoints and logs go to")
    return problems
  }

  private var sizes: [TrainingError] {
    var problems: [TrainingError] = []
    func check(_ name: String, _ value: Int, _ allowed: ClosedRange<Int>) {
      guard !allowed.contains(value) else { return }
      problems.append(
        .outOfRange(
          setting: name, found: "\(value)",
          allowed: "a number from \(allowed.lowerBound) to \(allowed.upperBound)"))
    }
    check("global_batch_size", globalBatchSize, 1...1 << 20)
    check("micro_batch_size", microBatchSize, 1...1 << 16)
    if globalBatchSize > 0, microBatchSize > 0, !globalBatchSize.isMultiple(of: microBatchSize) {
      problems.append(
        .batchNotDivisible(globalBatchSize: globalBatchSize, microBatchSize: microBatchSize))
    }
    if !(epochs > 0 && epochs <= 1e6) {
      problems.append(
        .outOfRange(
          setting: "num_train_epochs", found: "\(epochs)",
          allowed: "a number above 0, 1000000 at most"))
    }
    if let maxSteps { check("max_steps", maxSteps, 1...1 << 32) }
    if let stopAfter { check("stop_after", stopAfter, 1...1 << 32) }
    check("max_seq_length", maxSequenceLength, 2...1 << 20)
    check("dataloader_num_workers", dataloaderWorkers, 0...256)
    check("virtual_stages", virtualStages, 1...1024)
    check("save_steps", saveSteps, 1...1 << 32)
    check("save_total_limit", saveTotalLimit, 0...1 << 20)
    return problems
  }

  /// Micro-batches whose gradients a stage can wait for at a time: each is a call, and a connection
  /// takes 1024, of which some are chat's.
  static let mostUnderWay = 1000

  private var rates: [TrainingError] {
    var problems: [TrainingError] = []
    func check(_ name: String, _ value: Double, _ isAllowed: (Double) -> Bool, _ allowed: String) {
      if !value.isFinite || !isAllowed(value) {
        problems.append(.outOfRange(setting: name, found: "\(value)", allowed: allowed))
      }
    }
    check("learning_rate", learningRate, { $0 >= 0 && $0 <= 10 }, "a number from 0 to 10")
    check("warmup_ratio", warmupRatio, { $0 >= 0 && $0 <= 1 }, "a share from 0 to 1")
    check("decay_ratio", decayRatio, { $0 >= 0 && $0 <= 1 }, "a share from 0 to 1")
    if let warmupSteps, warmupSteps < 0 {
      problems.append(
        .outOfRange(setting: "warmup_steps", found: "\(warmupSteps)", allowed: "0 or more"))
    }
    check(
      "separate_turns", separateTurns, { $0 >= 0 && $0 <= 1 }, "true, false, or a share from 0 to 1"
    )
    check("weight_decay", weightDecay, { $0 >= 0 }, "0 or more")
    check("adam_beta1", beta1, { $0 >= 0 && $0 < 1 }, "a number from 0 to below 1")
    check("adam_beta2", beta2, { $0 >= 0 && $0 < 1 }, "a number from 0 to below 1")
    check("adam_epsilon", epsilon, { $0 > 0 }, "a number above 0")
    check("max_grad_norm", maxGradientNorm, { $0 >= 0 }, "a number above 0, or 0 for no clipping")
    check("drop_path_rate", dropPathRate, { $0 >= 0 && $0 < 1 }, "a rate from 0 to below 1")
    check("lora_dropout", loraDropout, { $0 >= 0 && $0 < 1 }, "a rate from 0 to below 1")
    if let loraAlpha { check("lora_alpha", loraAlpha, { $0 > 0 }, "a number above 0") }
    return problems
  }

  private var parts: [TrainingError] {
    var problems: [TrainingError] = []
    for (name, rank) in [
      ("use_backbone_lora", useBackboneLoRA), ("use_llm_lora", useLanguageLoRA),
    ] where !(0...65_536).contains(rank) {
      problems.append(
        .outOfRange(setting: name, found: "\(rank)", allowed: "a rank from 1, or 0 for none"))
    }
    let isVisionFrozen = freezeBackbone && useBackboneLoRA <= 0
    let isLanguageFrozen = freezeLanguage && useLanguageLoRA <= 0
    if isVisionFrozen && freezeProjector && isLanguageFrozen { problems.append(.nothingTrained) }
    if freezeBackbone, useBackboneLoRA <= 0, dropPathRate > 0 {
      problems.append(
        .conflictingSettings(
          "freeze_backbone", "drop_path_rate \(dropPathRate)",
          reason: "a frozen vision encoder drops no paths; set drop_path_rate to 0"))
    }
    return problems
  }

  private var choices: [TrainingError] {
    var problems: [TrainingError] = []
    if pack && padToMax {
      problems.append(
        .conflictingSettings(
          "pack", "pad_to_max",
          reason: "packing fills a micro-batch up to max_seq_length with whole samples, padding "
            + "fills each sample; leave one out"))
    }
    if pack && groupByLength {
      problems.append(
        .conflictingSettings(
          "pack", "group_by_length",
          reason: "packing fills micro-batches from any lengths; leave one out"))
    }
    if virtualStages > 1, schedule != .interleaved {
      problems.append(
        .conflictingSettings(
          "virtual_stages \(virtualStages)", "schedule \(schedule.rawValue)",
          reason: "only the interleaved schedule has several slices in a process; choose "
            + "schedule interleaved, or virtual_stages 1"))
    }
    if schedule == .interleaved, virtualStages < 2 {
      problems.append(
        .conflictingSettings(
          "schedule interleaved", "virtual_stages \(virtualStages)",
          reason: "interleaving needs several slices in a process; give virtual_stages 2 or more, "
            + "or choose schedule 1f1b"))
    }
    if schedule == .gpipe, microBatchSize > 0,
      globalBatchSize / microBatchSize > TrainingConfiguration.mostUnderWay
    {
      problems.append(
        .tooManyUnderWay(
          microBatches: globalBatchSize / microBatchSize, limit: TrainingConfiguration.mostUnderWay
        ))
    }
    if let saveType, !["float32", "bfloat16"].contains(saveType) {
      problems.append(
        .unknownValue(setting: "save_type", found: saveType, choices: ["float32", "bfloat16"]))
    }
    return problems
  }
}
