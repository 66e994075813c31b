import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// y [(height / patch) · (width / patch), 3 · patch · patch]: the patches of pixels
/// [3, height, width] in row-major order, each as channel, row, column, so that a convolution
/// whose kernel equals its stride becomes one product.
enum Patches {
  static func forward(_ pixels: Tensor, patch: Int, into y: Tensor, on device: CPUDevice) throws {
    try pixels.require(.float32, what: "pixels")
    guard patch > 0, pixels.shape.count == 3, pixels.shape[1] % patch == 0,
      pixels.shape[2] % patch == 0
    else {
      throw TensorError.shapeMismatch(
        what: "pixels cut into patches of \(patch)", expected: [3, patch, patch],
        found: pixels.shape)
    }
    let (channels, height, width) = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
    try pixels.require(shape: [3, height, width], "pixels")
    let (rows, columns) = (height / patch, width / patch)
    let length = channels * patch * patch
    try y.require(.float32, what: "patches")
    try y.require(shape: [rows * columns, length], "patches")

    let (from, into) = (pixels.floatBase, y.floatBase)
    device.parallel(rows: rows * columns, cost: length) { index in
      let (row, column) = index.quotientAndRemainder(dividingBy: columns)
      for channel in 0..<channels {
        for line in 0..<patch {
          memcpy(
            into + index * length + (channel * patch + line) * patch,
            from + (channel * height + row * patch + line) * width + column * patch,
            patch * MemoryLayout<Float>.size)
        }
      }
    }
    withExtendedLifetime((pixels, y)) {}
  }
}
