import CKernels
import Tensors

/// y = x / (1 − probability) where the element's draw is at least `probability`, else 0
/// (arXiv:1207.0580). Drawn again with the same stream, it is its own gradient.
enum Dropout {
  static func apply(
    _ x: Tensor, probability: Float, random: RandomStream, into y: Tensor, on device: CPUDevice
  ) throws {
    try x.require(.float32, what: "the input of dropout")
    try y.require(.float32, what: "the output of dropout")
    try y.require(shape: x.shape, "the output of dropout")
    let factor = probability < 1 ? 1 / (1 - probability) : 0
    let (from, into) = (x.floatBase, y.floatBase)
    device.parallel(elements: x.count) { range in
      let first = range.lowerBound
      device.kernels.dropout(
        from + first, range.count, random.seed, random.stream, UInt64(first), probability, factor,
        into + first)
    }
    withExtendedLifetime((x, y)) {}
  }
}

extension RandomStream {
  /// The four words of Philox4x32-10 for an element.
  func words(_ element: UInt64) -> [UInt32] {
    var words: [UInt32] = [0, 0, 0, 0]
    ck_philox(seed, stream, element, &words)
    return words
  }

  /// The draw of an element, in [0, 1): 24 bits of its first word.
  public func uniform(_ element: UInt64) -> Float { ck_uniform(seed, stream, element) }
}
