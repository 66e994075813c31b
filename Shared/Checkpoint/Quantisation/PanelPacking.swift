import Tensors

/// Makes panels of rows: what the kernels that read panels go by.
///
/// - Parameters:
///   - rows: float32 or bfloat16 [n, K], finite.
///   - format: q8 or q4.
///   - panels: uint8 [⌈n/16⌉, bytes of a panel], to be written in full.
public typealias PanelPacking =
  @Sendable (_ rows: Tensor, _ format: PackedMatrix.Format, _ panels: Tensor) throws -> Void
