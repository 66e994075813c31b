import Tensors

/// Writes the tables with a row for every token, with rows for new tokens.
struct VocabularyGrowth {
  let growth: TokenizerGrowth
  let seed: UInt64
  /// The head is the embedding: its new rows are the head's.
  let isTied: Bool

  private static let embedding = "language_model.model.embed_tokens.weight"
  private static let head = "language_model.lm_head.weight"
  static let names: Set<String> = [embedding, head]

  /// The standard deviation of `initializer_range` in LlamaConfig.
  private static let standardDeviation = 0.02

  /// - Parameter table: [old rows, D], at least as many rows as the tokenizer had tokens.
  /// - Throws: ``CheckpointError`` when the file cannot be written.
  func write(
    _ table: Tensor, as weight: Weight, _ type: ScalarType, to writer: SafetensorsWriter
  ) throws {
    let columns = weight.shape[1]
    let isHead = isTied || weight.name == VocabularyGrowth.head
    // Without new tokens the reference leaves the tables alone, longer ones than needed too.
    // With new ones it cuts them to the tokenizer's size, and takes what rows there are.
    let kept = min(weight.shape[0], table.shape[0])
    let copied = isHead ? min(kept, weight.shape[0] - growth.new.count) : kept
    try ShardFile.write(table.rows(0..<copied), as: weight.name, type, to: writer)
    guard copied < weight.shape[0] else { return }
    let mean = isHead ? VocabularyGrowth.mean(of: table.rows(0..<copied)) : nil
    let values = InitialValues(name: weight.name, seed: seed)
    for row in copied..<weight.shape[0] {
      let start = row * columns
      let new =
        mean
        ?? values.normal(
          start..<start + columns, standardDeviation: VocabularyGrowth.standardDeviation)
      try ShardFile.write(new, as: weight.name, from: start, type, to: writer)
    }
  }

  /// The mean of a table's rows, float32 [D], summed in Double.
  private static func mean(of table: Tensor) -> Tensor {
    let columns = table.shape[1]
    var sums = [Double](repeating: 0, count: columns)
    // Some rows at a time: the whole may be larger than memory.
    for start in stride(from: 0, to: table.shape[0], by: 256) {
      let rows = table.rows(start..<min(start + 256, table.shape[0])).converted(to: .float32)
      rows.withElements(of: Float.self) { elements in
        for row in 0..<rows.shape[0] {
          for column in 0..<columns { sums[column] += Double(elements[row * columns + column]) }
        }
      }
    }
    return Tensor(sums.map { Float($0 / Double(max(1, table.shape[0]))) }, [columns])
  }
}
