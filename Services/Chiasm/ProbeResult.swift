import Checkpoint
import Messages
import Sequencer
import Tensors
import Transport

/// What a model computes for one prompt, stage by stage: the file with which people compare it
/// to their own reference.
struct ProbeResult {
  /// [tiles, 3, H, W], all pictures one after another; nil without pictures, as the next two.
  var pixels: Tensor?
  /// [tiles, 1 + patches, C], class token first.
  var vision: Tensor?
  /// [image tokens, D].
  var projector: Tensor?
  /// [T, V]: of every position of the prompt.
  var logits: Tensor
  var inputIDs: [Int32]
  /// Greedy, going on past the end ids.
  var tokenIDs: [Int32]
  var decodedSHA256: [String]
  var resizedSHA256: [String]

  /// - Throws: `CheckpointError` when the file cannot be written.
  func write(to path: String) throws {
    var tensors: [(name: String, tensor: Tensor)] = []
    if let pixels { tensors.append(("pixels", pixels)) }
    if let vision { tensors.append(("vision", vision)) }
    if let projector { tensors.append(("projector", projector)) }
    tensors.append(("logits", logits))
    tensors.append(("input_ids", ProbeResult.wide(inputIDs)))
    tensors.append(("token_ids", ProbeResult.wide(tokenIDs)))
    try SafetensorsWriter.write(
      tensors,
      metadata: [
        "decoded_sha256": decodedSHA256.joined(separator: ","),
        "resized_sha256": resizedSHA256.joined(separator: ","),
      ], to: path)
  }

  private static func wide(_ ids: [Int32]) -> Tensor {
    let tensor = Tensor(uninitialized: .int64, [ids.count])
    tensor.withElements(of: Int64.self) { elements in
      for (index, id) in ids.enumerated() { elements[index] = Int64(id) }
    }
    return tensor
  }

  /// The tensors one after another along their first dimension; nil without any.
  static func joined(_ tensors: [Tensor]) -> Tensor? {
    guard let first = tensors.first else { return nil }
    if tensors.count == 1 { return first }
    let rows = tensors.reduce(0) { $0 + $1.shape[0] }
    let whole = Tensor(uninitialized: first.scalarType, [rows] + first.shape.dropFirst())
    var next = 0
    for tensor in tensors {
      whole.rows(next..<next + tensor.shape[0]).copyElements(from: tensor)
      next += tensor.shape[0]
    }
    return whole
  }
}
