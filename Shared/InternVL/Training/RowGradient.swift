import Kernels
import Tensors

/// The gradient of an embedding table [V, D], which a step gives to the rows of its tokens alone:
/// it holds no others.
///
/// Sums, and what is made of them, have the bits of a whole gradient. Owned by the thread that
/// computes.
final class RowGradient: @unchecked Sendable {
  /// [V, D]
  let shape: [Int]
  private var slots: [Int32]
  /// The rows used so far, and room for more.
  private var rows: Tensor
  private var used = 0

  init(_ shape: [Int]) {
    self.shape = shape
    slots = Array(repeating: -1, count: shape[0])
    rows = Tensor(zeros: .float32, [0, shape[1]])
  }

  var byteCount: Int { rows.byteCount }

  var value: SparseRows { SparseRows(slots: slots, rows: rows) }

  /// Row `ids[t]` += dY [T, D] row t, in order of t; a negative id is passed over.
  ///
  /// - Throws: `KernelError` for an id that the table does not have.
  func add(_ dY: Tensor, ids: [Int32], on device: any TrainingDevice) throws {
    for id in ids where Int(id) >= shape[0] {
      throw KernelError.tokenOutOfRange(id: Int(id), rows: shape[0])
    }
    for id in ids where id >= 0 && slots[Int(id)] < 0 {
      slots[Int(id)] = Int32(used)
      used += 1
    }
    if used > rows.shape[0] { grow() }
    try device.embedGradient(dY: dY, ids: ids.map { $0 < 0 ? -1 : slots[Int($0)] }, into: rows)
  }

  /// Every row ← 0.
  func clear(on device: any TrainingDevice) throws {
    try device.clear(rows)
    for row in slots.indices { slots[row] = -1 }
    used = 0
  }

  private func grow() {
    let grown = Tensor(zeros: .float32, [min(max(used, 2 * rows.shape[0]), shape[0]), shape[1]])
    grown.rows(0..<rows.shape[0]).copyElements(from: rows)
    rows = grown
  }
}
