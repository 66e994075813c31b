import Checkpoint

extension DataReport {
  /// Says that a run goes on with the data it began with: the annotation files are the same byte by
  /// byte, and the pictures' sizes in pixels and bytes, in the same order and cut to the same
  /// limit. What the pictures show is not read.
  ///
  /// - Throws: `CheckpointError` when an annotation file cannot be read any more.
  public func digest() throws -> String {
    var text = "\(source.encoder.maxSequenceLength)"
    if let classes = source.classes { text += " \(classes.list.digest)" }
    for dataset in source.datasets {
      let limit = dataset.meta.maxDynamicPatch.map { "\($0)" } ?? "-"
      let lines = try Digest.sha256(file: dataset.lines.path)
      text += " \(dataset.indices) \(limit) \(lines)"
    }
    // Digests of blocks: the numbers of all lines at once might not fit into memory.
    let block = 1 << 16
    for start in stride(from: 0, to: figures.count, by: block) {
      var bytes: [UInt8] = []
      for figures in figures[start..<min(start + block, figures.count)] {
        withUnsafeBytes(of: figures.tokens.littleEndian) { bytes += $0 }
        withUnsafeBytes(of: figures.pictureSizes.littleEndian) { bytes += $0 }
      }
      text += " " + Digest.sha256(bytes)
    }
    return Digest.sha256(Array(text.utf8))
  }
}
