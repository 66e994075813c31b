import Tensors

/// Weights [N, K] in panels of sixteen outputs.
enum Packing {
  /// - Throws: ``TensorError`` for a weight that is not float32 or bfloat16 [N, K].
  static func pack(_ weight: Tensor, on device: CPUDevice) throws -> PackedMatrix {
    try weight.require(.float32, .bfloat16, what: "a linear layer's weight")
    guard weight.shape.count == 2 else {
      throw TensorError.shapeMismatch(
        what: "a linear layer's weight", expected: [weight.shape.first ?? 0, weight.count],
        found: weight.shape)
    }
    let (outputs, depth) = (weight.shape[0], weight.shape[1])
    let format: PackedMatrix.Format = weight.scalarType == .float32 ? .float32 : .bfloat16
    guard let panelBytes = format.panelBytes(depth: depth) else {
      throw TensorError.invalidShape(weight.shape)
    }
    let width = PackedMatrix.panelOutputs
    let panels = Tensor(zeros: .uint8, [PackedMatrix.panelCount(outputs), panelBytes])
    let (from, into) = (weight.baseAddress, panels.baseAddress)
    device.pool.parallel(panels.shape[0]) { panel, _ in
      let base = into + panel * panelBytes
      for j in 0..<min(width, outputs - panel * width) {
        let row = (panel * width + j) * depth
        if format == .float32 {
          let (source, target) = (
            from.assumingMemoryBound(to: UInt32.self), base.assumingMemoryBound(to: UInt32.self)
          )
          for k in 0..<depth { target[k &* width &+ j] = source[row &+ k] }
        } else {
          let (source, target) = (
            from.assumingMemoryBound(to: UInt16.self), base.assumingMemoryBound(to: UInt16.self)
          )
          for k in 0..<depth { target[k &* width &+ j] = source[row &+ k] }
        }
      }
    }
    withExtendedLifetime(weight) {}
    return try PackedMatrix(format, outputs: outputs, depth: depth, panels: panels)
  }
}
