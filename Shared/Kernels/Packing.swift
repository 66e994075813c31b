import CKernels
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
    let rowBytes = depth * weight.scalarType.byteCount
    let panels = Tensor(
      uninitialized: .uint8, [PackedMatrix.panelCount(outputs), panelBytes])
    let (from, into) = (weight.baseAddress, panels.baseAddress)
    device.parallel(tiles: panels.shape[0], cost: width * depth) { panel, _ in
      device.kernels.pack_panel(
        from + panel * width * rowBytes, format == .bfloat16, depth,
        min(width, outputs - panel * width), into + panel * panelBytes)
    }
    withExtendedLifetime(weight) {}
    return try PackedMatrix(format, outputs: outputs, depth: depth, panels: panels)
  }
}
