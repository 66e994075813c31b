import CKernels
import Tensors

/// Rotary position embedding (arXiv:2104.09864) in the rotate_half convention of the Llama
/// code: element i of a head's first half and element i of its second form a pair.
///
/// first ← first · cos − second · sin, second ← second · cos + first · sin.
/// x [T, heads · H], cosines and sines [positions, H / 2].
enum RotaryEmbedding {
  static func forward(
    _ x: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor,
    on device: CPUDevice
  ) throws {
    try turn(
      x, heads: heads, positions: positions, cosines: cosines, sines: sines,
      by: device.kernels.rotate, on: device)
  }

  private typealias Turn =
    @convention(c) (
      UnsafeMutablePointer<Float>, Int, Int, UnsafePointer<Float>, UnsafePointer<Float>
    ) -> Void

  private static func turn(
    _ x: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor, by kernel: Turn,
    on device: CPUDevice
  ) throws {
    try cosines.requireRows(nil, "the cosines")
    try sines.require(.float32, what: "the sines")
    try sines.require(shape: cosines.shape, "the sines")
    let half = cosines.shape[1]
    try x.require(.float32, what: "rows to rotate")
    try x.require(shape: [positions.count, heads * 2 * half], "rows to rotate")
    for position in positions where position < 0 || position >= cosines.shape[0] {
      throw KernelError.positionOutOfRange(position: position, rows: cosines.shape[0])
    }

    let width = heads * 2 * half
    let (rows, cosineRows, sineRows) = (x.floatBase, cosines.floatBase, sines.floatBase)
    device.parallel(rows: positions.count, cost: width) { row in
      let angles = positions[row] * half
      kernel(rows + row * width, heads, half, cosineRows + angles, sineRows + angles)
    }
    withExtendedLifetime((x, cosines, sines)) {}
  }

  /// The gradient of the rotated rows becomes that of the rows: rotated back.
  static func gradient(
    _ dX: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor,
    on device: CPUDevice
  ) throws {
    try turn(
      dX, heads: heads, positions: positions, cosines: cosines, sines: sines,
      by: device.kernels.rotate_back, on: device)
  }
}
