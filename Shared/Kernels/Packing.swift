import CKernels
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

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
      let base = into + panel * panelBytes
      device.kernels.pack_panel(
        from + panel * width * rowBytes, format == .bfloat16, depth,
        min(width, outputs - panel * width), base)
      memset(base + width * rowBytes, 0, panelBytes - width * rowBytes)
    }
    withExtendedLifetime(weight) {}
    return try PackedMatrix(format, outputs: outputs, depth: depth, panels: panels)
  }
}
