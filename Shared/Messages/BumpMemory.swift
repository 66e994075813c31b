#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Memory for one encoding or decoding: handed out piece by piece, given back all at once.
///
/// The pieces come from a block the caller provides (usually on its stack), then from the heap.
/// A limit on their sum keeps a small hostile message from growing into a large value.
final class BumpMemory {
  private var cursor: UnsafeMutableRawPointer
  private var end: UnsafeMutableRawPointer
  private var blocks: [UnsafeMutableRawPointer] = []
  private var left: Int

  /// - Parameter first: where the first pieces come from; must outlive this object.
  init(first: UnsafeMutableRawBufferPointer, limit: Int) {
    guard let base = first.baseAddress else { preconditionFailure("an empty first block") }
    cursor = base
    end = base + first.count
    left = limit
  }

  deinit {
    for block in blocks { free(block) }
  }

  /// Uninitialized bytes, aligned for any C type; nil when the limit is reached.
  func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer? {
    guard byteCount <= left else { return nil }
    let piece = cursor.alignedUp(toMultipleOf: BumpMemory.alignment)
    if byteCount <= end - piece {
      left -= byteCount
      cursor = piece + byteCount
      return piece
    }
    let blockSize = max(byteCount, BumpMemory.blockSize)
    guard let block = malloc(blockSize) else { return nil }
    blocks.append(block)
    left -= byteCount
    cursor = block + byteCount
    end = block + blockSize
    return block
  }

  static let alignment = 16
  private static let blockSize = 16 << 10
}
