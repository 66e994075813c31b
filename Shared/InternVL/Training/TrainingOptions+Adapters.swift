import Checkpoint

extension TrainingOptions {
  /// The parts that adapters are trained of, as a checkpoint holds them for PEFT.
  ///
  /// - Parameter baseModel: what the adapters belong to.
  public func adapterFolders(baseModel: String) -> [AdapterFolder] {
    [("vision_model", visionLoRA), ("language_model", languageLoRA)].compactMap { part, lora in
      lora.map {
        AdapterFolder(
          part: part, rank: $0.rank, alpha: $0.alpha, dropout: $0.dropout, baseModel: baseModel)
      }
    }
  }
}
