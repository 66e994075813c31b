/// A float32 matrix [V, D] that is zero but for some of its rows, such as the gradient of an
/// embedding table after a step that used few tokens.
public struct SparseRows: Sendable {
  /// Where each of the V rows lies in ``rows``; −1: it is zero.
  public let slots: [Int32]
  /// [n, D].
  public let rows: Tensor

  public init(slots: [Int32], rows: Tensor) {
    precondition(rows.shape.count == 2 && slots.allSatisfy { $0 < rows.shape[0] })
    self.slots = slots
    self.rows = rows
  }

  /// [V, D]
  public var shape: [Int] { [slots.count, rows.shape[1]] }

  /// The whole matrix.
  public var dense: Tensor {
    let matrix = Tensor(zeros: .float32, shape)
    for (row, slot) in slots.enumerated() where slot >= 0 {
      matrix[row].copyElements(from: rows[Int(slot)])
    }
    return matrix
  }
}
