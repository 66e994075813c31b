import Checkpoint

extension DataReport {
  /// The report as JSON text.
  public func json(_ estimate: StepEstimate?) -> String {
    JSONValue.object([
      ("meta", .string(source.meta.path)),
      ("max_seq_length", .integer(source.encoder.maxSequenceLength)),
      ("samples", .integer(source.count)),
      ("lines", .integer(source.lineCount)),
      ("flawed", .integer(flaws.count)),
      ("unusable", .integer(fatalFlaws.count)),
      ("notes", .array(notes.map { .string($0) })),
      ("datasets", .array(datasets.map(DataReport.json))),
      ("flaws", .array(flaws.map(DataReport.json))),
      ("steps", estimate.map(DataReport.json) ?? .null),
    ]).text
  }

  private static func json(_ figures: DatasetFigures) -> JSONValue {
    .object([
      ("name", .string(figures.name)),
      ("lines", .integer(figures.lines)),
      ("repeat_time", .integer(figures.times)),
      ("usable", .integer(figures.usable)),
      ("pictures", .integer(figures.pictures)),
      ("tokens", .integer(figures.tokens)),
      ("image_tokens", .integer(figures.imageTokens)),
      ("learnt_tokens", .integer(figures.learntTokens)),
      ("tokens_mean", .number(figures.meanTokens)),
      ("tokens_p50", .integer(figures.medianTokens)),
      ("tokens_p95", .integer(figures.percentile95Tokens)),
      ("tokens_max", .integer(figures.maxTokens)),
      ("flaws", .object(figures.flaws.map { ($0.kind.rawValue, .integer($0.count)) })),
    ])
  }

  private static func json(_ flaw: SampleFlaw) -> JSONValue {
    .object([
      ("dataset", .string(flaw.source.dataset)),
      ("file", .string(flaw.source.file)),
      ("line", .integer(flaw.source.line)),
      ("kind", .string(flaw.kind.rawValue)),
      ("usable", .boolean(!flaw.isFatal)),
      ("detail", .string(flaw.detail)),
    ])
  }

  private static func json(_ estimate: StepEstimate) -> JSONValue {
    .object([
      ("global_batch_size", .integer(estimate.globalBatchSize)),
      ("steps_per_epoch", .integer(estimate.stepsPerEpoch)),
      ("samples_left_out_per_epoch", .integer(estimate.leftOut)),
      ("micro_batches_per_step_mean", .number(estimate.meanMicroBatches)),
      ("tokens_per_epoch", .integer(estimate.tokens)),
      ("tokens_per_step_mean", .number(estimate.meanTokens)),
      ("tokens_per_step_min", .integer(estimate.minTokens)),
      ("tokens_per_step_max", .integer(estimate.maxTokens)),
      ("image_tokens_per_step_mean", .number(estimate.meanImageTokens)),
      ("learnt_tokens_per_step_mean", .number(estimate.meanLearntTokens)),
    ])
  }
}
