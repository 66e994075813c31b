import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Memory of activations and gradients, which come back when the last tensor over them is gone
/// and are used again by the next of about the same size.
///
/// Slices that work in turns share theirs: what one holds no more the next one uses.
public final class TensorPool: Sendable {
  /// What several pools take their memory from. Never holds more, used and unused together, than
  /// was used at once so far.
  fileprivate final class Source: Sendable {
    private struct State {
      /// Addresses of unused memory, by size.
      var unused: [Int: [UInt]] = [:]
      var unusedBytes = 0
      var usedBytes = 0
      var peak = 0
    }

    private let state = Mutex(State())

    func take(_ size: Int) -> UInt {
      state.withLock { state in
        state.usedBytes += size
        state.peak = max(state.peak, state.usedBytes)
        if let address = state.unused[size]?.popLast() {
          state.unusedBytes -= size
          return address
        }
        Source.shrink(&state)
        return Source.allocate(size)
      }
    }

    func take(back address: UInt, _ size: Int) {
      state.withLock { state in
        state.usedBytes -= size
        state.unused[size, default: []].append(address)
        state.unusedBytes += size
        Source.shrink(&state)
      }
    }

    deinit {
      // No tensor is alive: each holds its pool.
      state.withLock { state in
        state.peak = 0
        Source.shrink(&state)
      }
    }

    /// Frees unused memory until the sum is within bounds.
    private static func shrink(_ state: inout State) {
      while state.usedBytes + state.unusedBytes > state.peak,
        let size = state.unused.first(where: { !$0.value.isEmpty })?.key,
        let address = state.unused[size]?.popLast()
      {
        state.unusedBytes -= size
        Source.free(address, size)
      }
    }

    /// Large memory is mapped, so that it goes back to the system as soon as it is freed.
    private static func allocate(_ size: Int) -> UInt {
      if size >= large {
        let base = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        precondition(base != MAP_FAILED, "no memory")
        return UInt(bitPattern: base)
      }
      return UInt(
        bitPattern: UnsafeMutableRawPointer.allocate(
          byteCount: size, alignment: Storage.alignment))
    }

    private static func free(_ address: UInt, _ size: Int) {
      let base = UnsafeMutableRawPointer(bitPattern: address)
      if size >= large { munmap(base, size) } else { base?.deallocate() }
    }

    private static let large = 1 << 20
  }

  private let source: Source
  private let used = Atomic<Int>(0)

  public init() { source = Source() }

  /// Counts for itself, and takes its memory where `other` does.
  init(sharing other: TensorPool) { source = other.source }

  /// Bytes of tensors that are alive.
  var usedBytes: Int { used.load(ordering: .relaxed) }

  /// float32, uninitialized.
  func tensor(_ shape: [Int]) -> Tensor {
    let count = shape.reduce(1, *)
    let size = TensorPool.size(holding: count * ScalarType.float32.byteCount)
    used.add(size, ordering: .relaxed)
    let address = source.take(size)
    guard let base = UnsafeMutableRawPointer(bitPattern: address) else {
      preconditionFailure("no memory")
    }
    let storage = Storage(base: base, byteCount: size) {
      self.used.subtract(size, ordering: .relaxed)
      self.source.take(back: address, size)
    }
    // Trusted: the bytes are there.
    guard let tensor = try? Tensor(.float32, shape, storage: storage) else {
      preconditionFailure("shape \(shape)")
    }
    return tensor
  }

  /// Rounded up to one of four steps for each doubling, of large memory by less.
  private static func size(holding bytes: Int) -> Int {
    let least = max(bytes, 256)
    let step = min(1 << (Int.bitWidth - least.leadingZeroBitCount - 3), 1 << 18)
    return (least + step - 1) / step * step
  }
}
