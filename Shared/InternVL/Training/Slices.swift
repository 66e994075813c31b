import Tensors

/// Checks at the border of a slice.
enum Slices {
  /// - Returns: the tensor, which is there, float32 and of the shape.
  /// - Throws: `TensorError`.
  @discardableResult
  static func require(_ tensor: Tensor?, _ shape: [Int], _ what: String) throws -> Tensor {
    guard let tensor else {
      throw TensorError.shapeMismatch(what: what, expected: shape, found: [])
    }
    try tensor.require(.float32, what: what)
    try tensor.require(shape: shape, what)
    return tensor
  }
}
