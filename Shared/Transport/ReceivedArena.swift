import CPlatform
import Messages
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The peer's arena, mapped for reading. It stays mapped while a tensor looks into it, also
/// after the connection is gone.
final class ReceivedArena: @unchecked Sendable {
  let byteCount: Int
  private let base: UnsafeMutableRawPointer

  /// - Throws: ``WireViolation`` when the file could shrink under us, or is not what was said.
  init(_ descriptor: Descriptor, byteCount: UInt64, limit: Int) throws {
    guard let count = Int(exactly: byteCount), count > 0, count <= limit else {
      throw WireViolation.arenaSize(byteCount, limit: limit)
    }
    let check = wire_memory_check(descriptor.number, count)
    guard check == 0 else { throw WireViolation.arenaNotSealed(errno: -check) }
    guard
      let base = mmap(nil, count, PROT_READ, MAP_SHARED | MAP_NORESERVE, descriptor.number, 0),
      base != MAP_FAILED
    else { throw WireViolation.arenaNotMapped(errno: errno) }
    self.byteCount = count
    self.base = base
  }

  deinit { munmap(base, byteCount) }

  /// The tensor at a place of the arena that is inside of it and aligned.
  ///
  /// Its elements must not be written. Its end is told to the peer through `outbox`.
  func tensor(_ reference: TensorRef, at offset: Int, outbox: Outbox) throws -> Tensor {
    let storage = Storage(base: base + offset, byteCount: reference.byteCount) { [self] in
      outbox.release(UInt64(offset))
      // The mapping goes with the last storage.
      withExtendedLifetime(self) {}
    }
    return try Tensor(reference.scalarType, reference.shape, storage: storage)
  }
}
