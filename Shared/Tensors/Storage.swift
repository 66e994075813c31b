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
  /// Whether the bytes are those of a file that is mapped, to be read from it again at any time.
  public let isMappedFile: Bool
  private let release: @Sendable () -> Void

  /// Wraps bytes owned by somebody else, who is told by `release` when they are no longer used.
  public init(
    base: UnsafeMutableRawPointer, byteCount: Int, isMappedFile: Bool = false,
    release: @escaping @Sendable () -> Void
  ) {
    self.base = base
    self.byteCount = byteCount
    self.isMappedFile = isMappedFile
    self.release = release
  }

  /// Zeroed memory, aligned to a cache line.
  public convenience init(zeroed byteCount: Int) {
    if byteCount >= Storage.large, let base = Storage.map(byteCount) {
      self.init(mapped: base, byteCount)
    } else {
      self.init(uninitialized: byteCount)
      memset(base, 0, byteCount)
    }
  }

  /// Uninitialized memory, aligned to a cache line.
  public convenience init(uninitialized byteCount: Int) {
    if byteCount >= Storage.large, let base = Storage.map(byteCount) {
      self.init(mapped: base, byteCount)
      return
    }
    let base = UnsafeMutableRawPointer.allocate(
      byteCount: max(byteCount, 1), alignment: Storage.alignment)
    let address = UInt(bitPattern: base)
    self.init(base: base, byteCount: byteCount) {
      UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
    }
  }

  /// Zeroed pages of our own, which come when they are first written to, and large ones where the
  /// system has them: weights pass by in order, and every small page is a halt. Nil when there is
  /// no room for them.
  private static func map(_ byteCount: Int) -> UnsafeMutableRawPointer? {
    let base = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let base, base != MAP_FAILED else { return nil }
    madvise(base, byteCount, MADV_HUGEPAGE)
    return base
  }

  private convenience init(mapped base: UnsafeMutableRawPointer, _ byteCount: Int) {
    let address = UInt(bitPattern: base)
    self.init(base: base, byteCount: byteCount) {
      munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
    }
  }

  /// Memory of so many bytes is mapped, less comes from the heap.
  private static let large = 1 << 20

  deinit { release() }

  /// A cache line, and the widest vector.
  public static let alignment = 64
}
