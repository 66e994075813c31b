import TrainingData

/// A report on training data as text.
enum DataTable {
  static func render(_ report: DataReport, _ estimate: DataReport.StepEstimate?) -> String {
    var text = table(
      [
        [
          "data set", "samples", "times", "usable", "pictures", "tokens", "mean", "p50", "p95",
          "max", "learnt", "flawed",
        ]
      ]
        + report.datasets.map { figures in
          let flawed = figures.flaws.reduce(0) { $0 + $1.count }
          let numbers = [
            figures.lines, figures.times, figures.usable, figures.pictures, figures.tokens,
            Int(figures.meanTokens.rounded()), figures.medianTokens, figures.percentile95Tokens,
            figures.maxTokens, figures.learntTokens, flawed,
          ]
          return [Clip.text(figures.name)] + numbers.map { "\($0)" }
        })
    for figures in report.datasets where !figures.flaws.isEmpty {
      let kinds = figures.flaws.map { "\($0.count) \($0.kind.rawValue)" }
      text += "\n\(Clip.text(figures.name)): \(kinds.joined(separator: ", "))\n"
    }
    if !report.flaws.isEmpty {
      text += "\n" + report.flaws.map { "\($0)\n" }.joined()
    }
    if !report.notes.isEmpty {
      text += "\n" + report.notes.map { "note: \($0)\n" }.joined()
    }
    if let estimate {
      text += "\n" + sentence(estimate)
    }
    let cut = report.flaws.count - report.fatalFlaws.count
    text += "\n\(report.source.lineCount) samples, \(report.flaws.count) flawed"
    if !report.flaws.isEmpty {
      text += ": \(report.fatalFlaws.count) cannot be used, \(cut) would be cut"
    }
    return text + "\n"
  }

  private static func sentence(_ estimate: DataReport.StepEstimate) -> String {
    let mean = Int(estimate.meanTokens.rounded())
    let image = Int(estimate.meanImageTokens.rounded())
    let learnt = Int(estimate.meanLearntTokens.rounded())
    let isEven = estimate.microBatches.isMultiple(of: estimate.stepsPerEpoch)
    let batches =
      isEven
      ? "\(estimate.microBatches / estimate.stepsPerEpoch)" : "\(Rate(estimate.meanMicroBatches))"
    let left =
      estimate.leftOut > 0
      ? "\(estimate.leftOut) samples of an epoch make no whole step and are left out of it, others "
        + "in every epoch\n" : ""
    return "\(estimate.stepsPerEpoch) steps of \(estimate.globalBatchSize) samples an epoch in "
      + "\(batches) micro-batches each, \(mean) tokens a step (full ones \(estimate.minTokens) to \(estimate.maxTokens)), "
      + "\(image) of them image tokens, \(learnt) learnt\n\(left)"
  }

  /// Columns set apart by two spaces, the first to the left, numbers to the right.
  private static func table(_ rows: [[String]]) -> String {
    let widths = rows.first?.indices.map { column in
      rows.map { $0[column].count }.max() ?? 0
    }
    guard let widths else { return "" }
    return rows.map { row in
      let cells = row.enumerated().map { column, cell in
        let padding = String(repeating: " ", count: widths[column] - cell.count)
        return column == 0 ? cell + padding : padding + cell
      }
      return cells.joined(separator: "  ") + "\n"
    }.joined()
  }
}
