import CKernels
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// −log softmax(hidden · weightᵀ)[label] of each labelled row and its gradients, a chunk of
/// labelled rows at a time: forward and backward at once, since the softmax is both.
///
/// hidden [T, D], weight [V, D]. The logits are those of inference, bit for bit.
enum CrossEntropy {
  static func forwardAndGradient(
    hidden: Tensor, weight: Tensor, labels: [Int32], scale: Float, dHidden: Tensor?,
    dWeight: Tensor?, on device: CPUDevice
  ) throws -> (sum: Double, rows: Int) {
    try hidden.requireRows(nil, "hidden states")
    let (rows, width) = (hidden.shape[0], hidden.shape[1])
    try hidden.require(shape: [labels.count, width], "hidden states")
    try weight.require(.float32, .bfloat16, what: "the output weight")
    guard weight.shape.count == 2, weight.shape[1] == width else {
      throw TensorError.shapeMismatch(
        what: "the output weight", expected: [weight.shape.first ?? 0, width], found: weight.shape)
    }
    let vocabulary = weight.shape[0]
    try dHidden?.requireRows(like: hidden, "the gradient of hidden states")
    try dWeight?.requireGradient(weight.shape, "the gradient of the output weight")
    for label in labels where label != ignored && (label < 0 || Int(label) >= vocabulary) {
      throw KernelError.tokenOutOfRange(id: Int(label), rows: vocabulary)
    }

    if let dHidden { try device.clear(dHidden) }
    let labelled = (0..<rows).filter { labels[$0] != ignored }
    let chunkRows = min(labelled.count, max(1, chunkElements / max(vocabulary, 1)))
    guard chunkRows > 0 else { return (0, 0) }
    var losses: [Double] = []
    try device.workspace.withFloats(chunkRows * (vocabulary + 2 * width)) { room in
      for start in stride(from: 0, to: labelled.count, by: chunkRows) {
        let taken = labelled[start..<min(start + chunkRows, labelled.count)]
        losses += try chunk(
          taken, of: hidden, weight: weight, labels: labels, scale: scale, dHidden: dHidden,
          dWeight: dWeight, room: room, on: device)
      }
    }
    return (losses.reduce(0, +), labelled.count)
  }

  /// Some labelled rows.
  ///
  /// - Parameter room: At least V + 2 · D floats a row.
  /// - Returns: their losses.
  private static func chunk(
    _ taken: ArraySlice<Int>, of hidden: Tensor, weight: Tensor, labels: [Int32], scale: Float,
    dHidden: Tensor?, dWeight: Tensor?, room: Tensor, on device: CPUDevice
  ) throws -> [Double] {
    let (vocabulary, width) = (weight.shape[0], weight.shape[1])
    var room = room
    func take(_ width: Int) -> Tensor {
      let count = taken.count * width
      defer { room = room.rows(count..<room.count) }
      return room.rows(0..<count).reshaped([taken.count, width])
    }
    let (inputs, gradients, logits) = (take(width), take(width), take(vocabulary))
    for (place, row) in taken.enumerated() {
      inputs[place].copyElements(from: hidden[row])
    }
    try device.linear(inputs, weight: weight, bias: nil, into: logits)

    let base = logits.floatBase
    var losses = [Double](repeating: 0, count: taken.count)
    losses.withUnsafeMutableBufferPointer { losses in
      nonisolated(unsafe) let losses = losses
      device.parallel(rows: taken.count, cost: vocabulary) { place in
        let label = Int(labels[taken[taken.startIndex + place]])
        losses[place] = row(
          base + place * vocabulary, count: vocabulary, label: label, scale: scale,
          kernels: device.kernels)
      }
    }

    if let dHidden {
      try device.linearInputGradient(
        dY: logits, weight: weight, adding: false, into: gradients)
      for (place, row) in taken.enumerated() {
        dHidden[row].copyElements(from: gradients[place])
      }
    }
    if let dWeight {
      try device.linearWeightGradient(x: inputs, dY: logits, weight: dWeight, bias: nil)
    }
    return losses
  }

  /// The label of a row that counts nothing.
  private static let ignored: Int32 = -100
  /// Logits held at a time: 32 MB.
  private static let chunkElements = 8_388_608

  /// The loss of a row, whose logits become scale · (softmax − one at the label).
  private static func row(
    _ logits: UnsafeMutablePointer<Float>, count: Int, label: Int, scale: Float,
    kernels: ck_kernels
  ) -> Double {
    let maximum = kernels.greatest(logits, count)
    let own = Double(logits[label]) - Double(maximum)
    // Short sums in float32, their sum in Double.
    var sum = 0.0
    for first in stride(from: 0, to: count, by: 1024) {
      sum += Double(kernels.exponentials(logits + first, min(1024, count - first), maximum))
    }
    kernels.scale(logits, count, Float(Double(scale) / sum))
    logits[label] -= scale
    return log(sum) - own
  }
}
