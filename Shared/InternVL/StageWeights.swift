import Checkpoint
import Tensors

/// Takes one stage's tensors from a checkpoint and adds up their bytes.
struct StageWeights {
  private let checkpoint: CheckpointReader
  /// Who needs the tensors, for errors: "this stage holds vision layers 0–8".
  private let purpose: String
  private(set) var byteCount = 0

  init(_ checkpoint: CheckpointReader, part: String, layers: Range<Int>) {
    self.checkpoint = checkpoint
    purpose =
      layers.count == 1
      ? "this stage holds \(part) layer \(layers.lowerBound)"
      : "this stage holds \(part) layers \(layers.lowerBound)–\(layers.upperBound - 1)"
  }

  init(_ checkpoint: CheckpointReader, purpose: String) {
    self.checkpoint = checkpoint
    self.purpose = purpose
  }

  /// - Throws: `CheckpointError` when the tensor is missing or has another shape.
  mutating func take(_ weight: Weight) throws -> Tensor {
    let tensor = try checkpoint.tensor(weight, neededFor: purpose)
    byteCount += tensor.byteCount
    return tensor
  }

  /// The same, or nil where the model has no such tensor.
  mutating func take(_ weight: Weight?) throws -> Tensor? {
    guard let weight else { return nil }
    return try take(weight) as Tensor
  }

  /// Counts a tensor that was computed from the checkpoint's and stays in memory.
  mutating func count(_ tensor: Tensor) { byteCount += tensor.byteCount }
}
