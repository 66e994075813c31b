import Synchronization
import Tensors

/// Memory of activations and gradients, which come back when the last tensor over them is gone
/// and are used again by the next of about the same size.
///
/// Never holds more, used and unused together, than was used at once so far.
final class TensorPool: Sendable {
  private struct State {
    /// Addresses of unused memory, by size.
    var unused: [Int: [UInt]] = [:]
    var unusedBytes = 0
    var usedBytes = 0
    var peak = 0
  }

  private let state = Mutex(State())

  /// Bytes of tensors that are alive.
  var usedBytes: Int { state.withLock { $0.usedBytes } }

  /// float32, uninitialized.
  func tensor(_ shape: [Int]) -> Tensor {
    let count = shape.reduce(1, *)
    let size = TensorPool.size(holding: count * ScalarType.float32.byteCount)
    let address = state.withLock { state in
      state.usedBytes += size
      state.peak = max(state.peak, state.usedBytes)
      if let address = state.unused[size]?.popLast() {
        state.unusedBytes -= size
        return address
      }
      TensorPool.shrink(&state)
      return UInt(
        bitPattern: UnsafeMutableRawPointer.allocate(
          byteCount: size, alignment: Storage.alignment))
    }
    guard let base = UnsafeMutableRawPointer(bitPattern: address) else {
      preconditionFailure("no memory")
    }
    let storage = Storage(base: base, byteCount: size) { self.take(back: address, size) }
    // Trusted: the bytes are there.
    guard let tensor = try? Tensor(.float32, shape, storage: storage) else {
      preconditionFailure("shape \(shape)")
    }
    return tensor
  }

  deinit {
    // No tensor is alive: each holds the pool.
    state.withLock { state in
      state.peak = 0
      TensorPool.shrink(&state)
    }
  }

  private func take(back address: UInt, _ size: Int) {
    state.withLock { state in
      state.usedBytes -= size
      state.unused[size, default: []].append(address)
      state.unusedBytes += size
      TensorPool.shrink(&state)
    }
  }

  /// Frees unused memory until the sum is within bounds.
  private static func shrink(_ state: inout State) {
    while state.usedBytes + state.unusedBytes > state.peak,
      let size = state.unused.first(where: { !$0.value.isEmpty })?.key,
      let address = state.unused[size]?.popLast()
    {
      state.unusedBytes -= size
      UnsafeMutableRawPointer(bitPattern: address)?.deallocate()
    }
  }

  /// Rounded up to one of four steps for each doubling.
  private static func size(holding bytes: Int) -> Int {
    let least = max(bytes, 256)
    let step = 1 << (Int.bitWidth - least.leadingZeroBitCount - 3)
    return (least + step - 1) / step * step
  }
}
