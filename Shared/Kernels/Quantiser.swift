import CKernels
import Synchronization
import Tensors

/// Weights between rows and panels of 8-bit and 4-bit numbers (``PackedMatrix``).
///
/// 8 bits: each block of 32 is rounded to multiples of max|w| / 127. 4 bits: the scale and zero of
/// a block are those of least squared error among some dozens, found by cutting the block's range
/// and improving each cut by least squares. The same panels on every machine.
public enum Quantiser {
  /// Fills the panels of consecutive outputs of a weight, on the calling thread.
  ///
  /// - Parameters:
  ///   - rows: float32 or bfloat16 [n, K], K a multiple of 32.
  ///   - format: q8 or q4.
  ///   - panels: uint8 [⌈n/16⌉, bytes of a panel].
  /// - Throws: ``KernelError/notQuantisable(row:column:value:)``, ``TensorError``.
  public static func quantise(
    _ rows: Tensor, as format: PackedMatrix.Format, into panels: Tensor
  ) throws {
    try quantise(rows, as: format, into: panels, kernels: ck_kernels_best().pointee)
  }

  /// The whole weight [N, K], by as many threads as the device has.
  ///
  /// - Throws: As ``quantise(_:as:into:)`` does.
  public static func quantise(
    _ weight: Tensor, as format: PackedMatrix.Format, on device: CPUDevice
  ) throws -> PackedMatrix {
    let panelBytes = try requirePanels(of: weight, format)
    let outputs = weight.shape[0]
    let count = PackedMatrix.panelCount(outputs)
    let panels = Tensor(uninitialized: .uint8, [count, panelBytes])
    let failures = Failures()
    let width = PackedMatrix.panelOutputs
    device.parallel(tiles: count, cost: width * weight.shape[1] * 16) { panel, _ in
      let first = panel * width
      do {
        try quantise(
          weight.rows(first..<min(first + width, outputs)), as: format,
          into: panels.rows(panel..<panel + 1), kernels: device.kernels)
      } catch {
        failures.add(error, of: panel)
      }
    }
    if let (panel, error) = failures.first {
      guard case KernelError.notQuantisable(let row, let column, let value) = error else {
        throw error
      }
      throw KernelError.notQuantisable(row: panel * width + row, column: column, value: value)
    }
    return try PackedMatrix(format, outputs: outputs, depth: weight.shape[1], panels: panels)
  }

  /// Outputs `range` of quantised panels as float32 rows [n, K], exactly.
  public static func rows(_ range: Range<Int>, of matrix: PackedMatrix) -> Tensor {
    precondition(range.lowerBound >= 0 && range.upperBound <= matrix.outputs, "rows \(range)")
    let rows = Tensor(uninitialized: .float32, [range.count, matrix.depth])
    for output in range {
      widen(output, of: matrix, into: rows.floatBase + (output - range.lowerBound) * matrix.depth)
    }
    withExtendedLifetime((rows, matrix)) {}
    return rows
  }

  /// One output's weights.
  static func widen(
    _ output: Int, of matrix: PackedMatrix, into row: UnsafeMutablePointer<Float>
  ) {
    precondition(matrix.format == .q8 || matrix.format == .q4, "quantised panels only")
    let (panel, lane) = output.quotientAndRemainder(dividingBy: PackedMatrix.panelOutputs)
    let base = matrix.panels.baseAddress + panel * matrix.panelBytes
    ck_widen_quantised(
      base.assumingMemoryBound(to: UInt8.self), matrix.depth, matrix.format == .q4, lane, row)
  }

  static func quantise(
    _ rows: Tensor, as format: PackedMatrix.Format, into panels: Tensor, kernels: ck_kernels
  ) throws {
    let panelBytes = try requirePanels(of: rows, format)
    let (outputs, depth) = (rows.shape[0], rows.shape[1])
    try panels.require(.uint8, what: "quantised panels")
    try panels.require(
      shape: [PackedMatrix.panelCount(outputs), panelBytes], "quantised panels")

    let width = PackedMatrix.panelOutputs
    // A panel's rows, widened.
    let widened =
      rows.scalarType == .bfloat16 ? Tensor(uninitialized: .float32, [width, depth]) : nil
    for panel in 0..<panels.shape[0] {
      let first = panel * width
      let count = min(width, outputs - first)
      let into = (panels.baseAddress + panel * panelBytes).assumingMemoryBound(to: UInt8.self)
      let weights: UnsafePointer<Float>
      if let widened {
        rows.withElements(of: UInt16.self) { halves in
          guard let base = halves.baseAddress else { return }
          kernels.widen(base + first * depth, count * depth, widened.floatBase)
        }
        weights = UnsafePointer(widened.floatBase)
      } else {
        weights = UnsafePointer(rows.floatBase + first * depth)
      }
      let found = kernels.quantise_panel(weights, depth, count, depth, format == .q4, into)
      guard found < 0 else {
        throw KernelError.notQuantisable(
          row: first + found / depth, column: found % depth, value: weights[found])
      }
      let used = depth / format.blockLength * format.blockBytes
      (into + used).update(repeating: 0, count: panelBytes - used)
    }
    withExtendedLifetime((rows, panels, widened)) {}
  }

  /// - Returns: bytes of a panel.
  private static func requirePanels(of rows: Tensor, _ format: PackedMatrix.Format) throws -> Int {
    precondition(format == .q8 || format == .q4, "\(format) is no quantised format")
    try rows.require(.float32, .bfloat16, what: "a weight to be quantised")
    guard rows.shape.count == 2, let bytes = format.panelBytes(depth: rows.shape[1]) else {
      throw TensorError.invalidShape(rows.shape)
    }
    return bytes
  }
}

extension PackedMatrix.Format {
  /// Bytes of a quantised block of sixteen outputs.
  fileprivate var blockBytes: Int { self == .q4 ? 256 + 32 + 8 : 512 + 32 }
}

/// What went wrong in tiles, which several threads compute.
private final class Failures: Sendable {
  private let found = Mutex<[Int: any Error]>([:])

  func add(_ error: any Error, of tile: Int) {
    found.withLock { $0[tile] = error }
  }

  /// The first tile's, whichever thread was first.
  var first: (tile: Int, error: any Error)? {
    found.withLock { $0.min { $0.key < $1.key }.map { ($0.key, $0.value) } }
  }
}
