#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A run of bytes that tensors look into: heap memory, a mapped file, or a block of a
/// shared-memory arena.
///
/// The bytes live until the last tensor over them is gone; then `release` runs, once, on
/// whichever thread let go last. Storage itself does not synchronize access: one writer at a
/// time, and readers only after the writer is done, is the caller's to keep.
public final class Storage: @unchecked Sendable {
  public let base: UnsafeMutableRawPointer
  public let byteCount: Int
  private let release: @Sendable () -> Void

  /// Wraps bytes owned by somebody else, who is told by `release` when they are no longer used.
  public init(
    base: UnsafeMutableRawPointer, byteCount: Int, release: @escaping @Sendable () -> Void
  ) {
    self.base = base
    self.byteCount = byteCount
    self.release = release
  }

  /// Zeroed heap memory, aligned to a cache line.
  public convenience init(zeroed byteCount: Int) {
    let base = UnsafeMutableRawPointer.allocate(
      byteCount: max(byteCount, 1), alignment: Storage.alignment)
    memset(base, 0, byteCount)
    let address = UInt(bitPattern: base)
    self.init(base: base, byteCount: byteCount) {
      UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
    }
  }

  /// Uninitialized heap memory, aligned to a cache line.
  public convenience init(uninitialized byteCount: Int) {
    let base = UnsafeMutableRawPointer.allocate(
      byteCount: max(byteCount, 1), alignment: Storage.alignment)
    let address = UInt(bitPattern: base)
    self.init(base: base, byteCount: byteCount) {
      UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
    }
  }

  deinit { release() }

  /// A cache line, and the widest vector.
  public static let alignment = 64
}
