import Messages
import Synchronization
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The sending half of a connection.
///
/// Whoever has a frame to send writes it to the carrier at once, without blocking; what the
/// carrier does not take waits here, and the connection's thread sends it on. Tensors wait by
/// reference. Nothing is freed while the lock is held, because a tensor's end may send a
/// RELEASE through this or another outbox.
final class Outbox: Sendable {
  /// A frame on its way.
  private struct Item {
    var head: [UInt8]
    var tensors: [Tensor]
    var descriptor: Descriptor?
    var sent = 0
    let byteCount: Int

    init(head: [UInt8], tensors: [Tensor], descriptor: Descriptor?) {
      self.head = head
      self.tensors = tensors
      self.descriptor = descriptor
      byteCount = tensors.reduce(head.count) { $0 + $1.byteCount }
    }
  }

  private struct State {
    var isOpen = true
    var items: [Item] = []
    /// Items before this one are gone.
    var first = 0
    var queuedBytes = 0
    var released: [UInt64] = []
    var waiters: [Waiter<Void>] = []
    var hasFailed = false

    var isEmpty: Bool { first == items.count }
  }

  private let carrier: Carrier
  private let limit: Int
  private let state = Mutex(State())

  init(carrier: Carrier, limit: Int) {
    self.carrier = carrier
    self.limit = limit
  }

  enum Sending {
    case accepted
    /// The connection is closed.
    case closed
    /// The peer reads nothing, and asks for ever more answers.
    case stuck
  }

  /// Sends a frame, or queues what the carrier has no room for. Never blocks.
  @discardableResult
  func send(
    _ frame: Frame, tensors: [Tensor] = [], descriptor: Descriptor? = nil
  ) -> Sending {
    let item = Item(head: Outbox.encode(frame), tensors: tensors, descriptor: descriptor)
    let (result, needsThread): (Sending, Bool) = state.withLock { state in
      guard state.isOpen else { return (.closed, false) }
      guard state.items.count - state.first < Outbox.maximumItems else { return (.stuck, false) }
      var item = item
      if state.isEmpty {
        if write(&item, &state) { return (.accepted, state.hasFailed) }
        state.items.removeAll(keepingCapacity: true)
        state.first = 0
      }
      let wasEmpty = state.isEmpty
      state.queuedBytes += item.byteCount - item.sent
      state.items.append(item)
      return (.accepted, wasEmpty)
    }
    if needsThread { carrier.wake() }
    return result
  }

  /// Gives a tensor of the peer's arena back, together with others where the carrier is busy.
  func release(_ offset: UInt64) {
    let needsThread = state.withLock { state in
      guard state.isOpen else { return false }
      state.released.append(offset)
      guard state.isEmpty else { return false }
      return !sendReleased(&state)
    }
    if needsThread { carrier.wake() }
  }

  /// Whether the thread should wait for room.
  var hasQueued: Bool { state.withLock { !$0.isEmpty } }

  /// Whether the carrier takes nothing any more.
  var hasFailed: Bool { state.withLock { $0.hasFailed } }

  /// Sends what the carrier has room for. For the connection's thread.
  func flush() {
    let (done, waiters): ([Item], [Waiter<Void>]) = state.withLock { state in
      guard state.isOpen else { return ([], []) }
      var done: [Item] = []
      repeat {
        while !state.isEmpty {
          let before = state.items[state.first].sent
          var item = state.items[state.first]
          let finished = write(&item, &state)
          state.items[state.first].sent = item.sent
          state.queuedBytes -= state.items[state.first].sent - before
          guard finished else { break }
          done.append(state.items[state.first])
          state.items[state.first].tensors = []
          state.items[state.first].head = []
          state.items[state.first].descriptor = nil
          state.first += 1
        }
        guard state.isEmpty else { break }
        state.items.removeAll(keepingCapacity: true)
        state.first = 0
      } while !state.released.isEmpty && sendReleased(&state)
      if state.first > 64, state.first > state.items.count / 2 {
        state.items.removeFirst(state.first)
        state.first = 0
      }
      guard state.queuedBytes <= limit else { return (done, []) }
      defer { state.waiters = [] }
      return (done, state.waiters)
    }
    for waiter in waiters { waiter.resolve(.success(())) }
    withExtendedLifetime(done) {}
  }

  /// A waiter that ends when there is room for another message; nil when there is room now.
  func roomWaiter() -> Waiter<Void>? {
    state.withLock { state in
      guard state.isOpen, state.queuedBytes > limit else { return nil }
      state.waiters.removeAll { $0.isResolved }
      let waiter = Waiter<Void>()
      state.waiters.append(waiter)
      return waiter
    }
  }

  /// Drops everything queued and sends nothing from now on.
  func close() {
    let old = state.withLock { state in
      let old = state
      state = State()
      state.isOpen = false
      return old
    }
    for waiter in old.waiters { waiter.resolve(.success(())) }
  }

  /// - Returns: whether nothing of it had to be queued.
  private func sendReleased(_ state: inout State) -> Bool {
    var frame = Frame(kind: .release)
    swap(&frame.released, &state.released)
    var item = Item(head: Outbox.encode(frame), tensors: [], descriptor: nil)
    if write(&item, &state) { return !state.hasFailed }
    state.queuedBytes += item.byteCount - item.sent
    state.items.append(item)
    return false
  }

  /// - Returns: whether the frame went out in full. A carrier that fails takes everything, and
  ///   the connection's thread learns of it.
  private func write(_ item: inout Item, _ state: inout State) -> Bool {
    while item.sent < item.byteCount {
      let outcome: Carrier.Outcome = withUnsafeTemporaryAllocation(
        of: iovec.self, capacity: 1 + item.tensors.count
      ) { parts in
        var count = 0
        var skip = item.sent
        func add(_ base: UnsafeRawPointer?, _ byteCount: Int) {
          if skip < byteCount, let base {
            parts.initializeElement(
              at: count,
              to: iovec(
                iov_base: UnsafeMutableRawPointer(mutating: base + skip), iov_len: byteCount - skip)
            )
            count += 1
            skip = 0
          } else {
            skip -= byteCount
          }
        }
        return item.head.withUnsafeBytes { head in
          add(head.baseAddress, head.count)
          for tensor in item.tensors { add(tensor.baseAddress, tensor.byteCount) }
          return carrier.send(
            UnsafeBufferPointer(start: parts.baseAddress, count: count),
            passing: item.sent == 0 ? item.descriptor : nil)
        }
      }
      switch outcome {
      case .bytes(let count): item.sent += count
      case .wouldBlock: return false
      case .ended, .failed:
        item.sent = item.byteCount
        state.hasFailed = true
      }
    }
    return true
  }

  private static func encode(_ frame: Frame) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(64 + (frame.message?.count ?? 0))
    bytes.append(contentsOf: [0, 0, 0, 0, 0])
    frame.encode(into: &bytes)
    let length = UInt32(bytes.count - 5)
    for index in 0..<4 { bytes[1 + index] = UInt8(truncatingIfNeeded: length >> (24 - 8 * index)) }
    return bytes
  }

  /// Callers wait for room before they send, so more than this are answers to a peer that
  /// reads none of them.
  private static let maximumItems = 16384
}
