/// What a stage can come to hold: its share of the weights, and bounds of everything besides.
struct StageMemory: Sendable, CustomStringConvertible {
  /// Mapped from the checkpoint, shared with every process that maps the same.
  var weightBytes: Int
  /// Bounds of the rest, by name.
  var parts: [(name: String, byteCount: Int)]

  /// Leaves out what is not needed at all.
  init(weightBytes: Int, _ parts: [(name: String, byteCount: Int)]) {
    self.weightBytes = weightBytes
    self.parts = parts.filter { $0.byteCount > 0 }
  }

  /// Upper bound of what is held besides the weights.
  var workingBytes: Int { parts.reduce(0) { $0 + $1.byteCount } }

  var description: String {
    "\(ByteCount(weightBytes)) of weights, at most \(ByteCount(workingBytes)) besides: "
      + parts.map { "\($0.name) \(ByteCount($0.byteCount))" }.joined(separator: ", ")
  }
}
