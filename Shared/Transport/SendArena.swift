import CPlatform
import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The shared memory in which this side's tensors travel.
///
/// A block is in use while a tensor of this process looks into it, and while the peer holds a
/// reference that it has not released. Blocks are found first-fit, so that low pages, committed
/// already, are used again. Whoever finds no room waits in line: that is the wire's
/// back-pressure.
final class SendArena: Sendable {
  private struct Block {
    var byteCount: Int
    var isHeldHere: Bool
    var sent: Int
  }

  private struct Reference {
    var count: Int
    let block: Int
  }

  private struct Request {
    let byteCount: Int
    let waiter: Waiter<Int>
  }

  private struct State {
    var blocks: [Int: Block] = [:]
    /// Free ranges by offset, never adjacent to each other.
    var free: [Range<Int>]
    /// References the peer holds, by the offset they were sent with.
    var references: [Int: Reference] = [:]
    var requests: [Request] = []
    var failure: RPCError?
  }

  let byteCount: Int
  private nonisolated(unsafe) let base: UnsafeMutableRawPointer
  private let state: Mutex<State>

  /// - Parameter share: sends the file to the peer, with its size.
  /// - Throws: ``TransportError/system(what:errno:)``.
  init(byteCount: Int, share: (Descriptor, Int) -> Void) throws {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let byteCount = (max(byteCount, 1) + page - 1) / page * page
    let number = wire_memory_create("chiasm-arena", byteCount)
    guard number >= 0 else {
      throw TransportError.system(what: "memfd_create of \(byteCount) bytes", errno: -number)
    }
    let descriptor = Descriptor(number)
    guard
      let base = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0),
      base != MAP_FAILED
    else { throw TransportError.system(what: "mmap of \(byteCount) bytes", errno: errno) }
    let sealed = wire_memory_seal(number)
    guard sealed == 0 else {
      munmap(base, byteCount)
      throw TransportError.system(what: "sealing a shared memory", errno: -sealed)
    }
    self.byteCount = byteCount
    self.base = base
    state = Mutex(State(free: [0..<byteCount]))
    share(descriptor, byteCount)
  }

  deinit { munmap(base, byteCount) }

  /// A block, if there is room and nobody waits for some.
  /// - Throws: ``RPCError`` when the arena is closed.
  func allocateNow(_ byteCount: Int) throws -> Storage? {
    let offset: Int? = try state.withLock { state in
      if let failure = state.failure { throw failure }
      state.requests.removeAll { $0.waiter.isResolved }
      guard state.requests.isEmpty else { return nil }
      return SendArena.take(byteCount, &state)
    }
    return offset.map { storage($0, byteCount) }
  }

  /// A waiter that gets the offset of a block when there is room; to be finished by
  /// ``storage(_:_:)``, or by ``requestAbandoned()``.
  func request(_ byteCount: Int) -> Waiter<Int> {
    let waiter = Waiter<Int>()
    state.withLock {
      if let failure = $0.failure {
        waiter.resolve(.failure(failure))
      } else {
        $0.requests.append(Request(byteCount: byteCount, waiter: waiter))
      }
    }
    serve()
    return waiter
  }

  func requestAbandoned() { serve() }

  /// The tensor storage over a block that was allocated.
  func storage(_ offset: Int, _ byteCount: Int) -> Storage {
    Storage(base: base + offset, byteCount: byteCount) { [self] in
      state.withLock { state in
        state.blocks[offset]?.isHeldHere = false
        SendArena.freeIfUnused(offset, &state)
      }
      serve()
    }
  }

  func contains(_ tensor: Tensor) -> Bool {
    tensor.storage.base >= base && tensor.storage.base < base + byteCount
  }

  /// Counts a reference that is about to be sent.
  /// - Returns: the offset to send.
  func addReference(to tensor: Tensor) -> Int {
    let offset = tensor.baseAddress - UnsafeMutableRawPointer(base)
    let block = tensor.storage.base - UnsafeMutableRawPointer(base)
    state.withLock { state in
      state.blocks[block]?.sent += 1
      state.references[offset, default: Reference(count: 0, block: block)].count += 1
    }
    return offset
  }

  /// Takes references back that the peer gives up.
  /// - Throws: ``WireViolation/released(offset:)`` for one it does not hold.
  func release(_ offsets: [UInt64]) throws {
    defer { serve() }
    try state.withLock { state in
      for offset in offsets {
        guard let key = Int(exactly: offset), var reference = state.references[key] else {
          throw WireViolation.released(offset: offset)
        }
        reference.count -= 1
        state.references[key] = reference.count == 0 ? nil : reference
        state.blocks[reference.block]?.sent -= 1
        SendArena.freeIfUnused(reference.block, &state)
      }
    }
  }

  /// Fails everybody who waits or comes later. Tensors over the arena stay valid.
  func close(_ failure: RPCError) {
    let requests = state.withLock { state in
      state.failure = failure
      defer { state.requests = [] }
      return state.requests
    }
    for request in requests { request.waiter.resolve(.failure(failure)) }
  }

  /// Bytes in blocks.
  var usedBytes: Int {
    state.withLock { $0.blocks.values.reduce(0) { $0 + $1.byteCount } }
  }

  /// Hands room to those who wait, first come, first served.
  private func serve() {
    while true {
      let served: (Request, Int)? = state.withLock { state in
        state.requests.removeAll { $0.waiter.isResolved }
        guard let first = state.requests.first,
          let offset = SendArena.take(first.byteCount, &state)
        else { return nil }
        state.requests.removeFirst()
        return (first, offset)
      }
      guard let (request, offset) = served else { return }
      guard !request.waiter.resolve(.success(offset)) else { continue }
      // The waiter gave up meanwhile.
      state.withLock { state in
        state.blocks[offset]?.isHeldHere = false
        SendArena.freeIfUnused(offset, &state)
      }
    }
  }

  private static func take(_ byteCount: Int, _ state: inout State) -> Int? {
    let size = rounded(byteCount)
    guard let index = state.free.firstIndex(where: { $0.count >= size }) else { return nil }
    let range = state.free[index]
    if range.count == size {
      state.free.remove(at: index)
    } else {
      state.free[index] = range.lowerBound + size..<range.upperBound
    }
    state.blocks[range.lowerBound] = Block(byteCount: size, isHeldHere: true, sent: 0)
    return range.lowerBound
  }

  private static func freeIfUnused(_ offset: Int, _ state: inout State) {
    guard let block = state.blocks[offset], !block.isHeldHere, block.sent == 0 else { return }
    state.blocks[offset] = nil
    var range = offset..<offset + block.byteCount
    var low = 0
    var high = state.free.count
    while low < high {
      let middle = (low + high) / 2
      if state.free[middle].lowerBound < offset { low = middle + 1 } else { high = middle }
    }
    if low < state.free.count, state.free[low].lowerBound == range.upperBound {
      range = range.lowerBound..<state.free[low].upperBound
      state.free.remove(at: low)
    }
    if low > 0, state.free[low - 1].upperBound == range.lowerBound {
      state.free[low - 1] = state.free[low - 1].lowerBound..<range.upperBound
    } else {
      state.free.insert(range, at: low)
    }
  }

  /// Bytes a block of that many bytes takes.
  static func rounded(_ byteCount: Int) -> Int {
    max((byteCount + Storage.alignment - 1) / Storage.alignment, 1) * Storage.alignment
  }
}
