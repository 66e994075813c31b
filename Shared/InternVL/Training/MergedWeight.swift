import Checkpoint
import Tensors

/// weight + (alpha / r) · B · A in float32, computed where it is read, piece by piece.
///
/// An element gets its r products in their order, wherever a piece begins: its bits depend on the
/// matrices alone.
///
/// Legend: K input width, N output width, r rank.
public struct MergedWeight: TensorSource {
  /// [N, K], float32 or bfloat16.
  let weight: Tensor
  /// [r, K]
  let a: Tensor
  /// [N, r]
  let b: Tensor
  /// alpha / r
  let scale: Float

  public var shape: [Int] { weight.shape }

  public func elements(_ range: Range<Int>) -> Tensor {
    let sums = weight.elements(range).widened()
    guard !range.isEmpty else { return sums }
    let width = weight.shape[1]
    let rows = range.lowerBound / width...(range.upperBound - 1) / width
    a.withElements(of: Float.self) { a in
      b.withElements(of: Float.self) { b in
        sums.withElements(of: Float.self) { sums in
          guard let a = a.baseAddress, let b = b.baseAddress, let sums = sums.baseAddress
          else { return }
          // A's columns stay near while the rows pass by.
          for first in stride(from: 0, to: width, by: MergedWeight.columns) {
            let block = first..<min(first + MergedWeight.columns, width)
            for row in rows {
              let begin = row * width
              let columns = block.clamped(
                to: range.lowerBound - begin..<range.upperBound - begin)
              addProduct(
                b + row * self.b.shape[1], a + columns.lowerBound, columns.count,
                to: sums + (begin + columns.lowerBound - range.lowerBound))
            }
          }
        }
      }
    }
    return sums
  }

  private static let columns = 512

  /// sums[i] += scale · Σ factors[r] · a[r, i]
  private func addProduct(
    _ factors: UnsafePointer<Float>, _ a: UnsafePointer<Float>, _ count: Int,
    to sums: UnsafeMutablePointer<Float>
  ) {
    let (rank, width) = (self.a.shape[0], self.a.shape[1])
    var index = 0
    // Four at a time: a sum is read and written that much less often.
    while index + 4 <= rank {
      let p = a + index * width
      let (q, r, s) = (p + width, p + 2 * width, p + 3 * width)
      let (f, g) = (scale * factors[index], scale * factors[index + 1])
      let (h, i) = (scale * factors[index + 2], scale * factors[index + 3])
      for column in 0..<count {
        sums[column] =
          sums[column] + f * p[column] + g * q[column] + h * r[column] + i * s[column]
      }
      index += 4
    }
    while index < rank {
      let (p, f) = (a + index * width, scale * factors[index])
      for column in 0..<count { sums[column] += f * p[column] }
      index += 1
    }
  }
}
