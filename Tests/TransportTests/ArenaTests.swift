import Messages
import Synchronization
import Tensors
import Testing

@testable import Transport

@Suite(.timeLimit(.minutes(2))) struct ArenaTests {
  /// Keeps every tensor it gets, until told to let go.
  private func keepingRouter(_ kept: Kept) -> Router {
    var router = Router()
    router.handle(Methods.LanguageModel.step) { request, _ in
      kept.add(request.tensors)
      return Payload(StepReply())
    }
    return router
  }

  final class Kept: Sendable {
    private let held = Mutex<[Attachment]>([])
    func add(_ new: [Attachment]) { held.withLock { $0 += new } }
    func dropAll() {
      // The tensors end outside the lock.
      _ = held.withLock { held in
        defer { held = [] }
        return held
      }
    }
    var all: [Attachment] { held.withLock { $0 } }
  }

  private func options(arenaBytes: Int) -> ConnectionOptions {
    var options = ConnectionOptions.patient
    options.arenaBytes = arenaBytes
    return options
  }

  @Test("a tensor made by allocate is read where it was written")
  func inPlace() async throws {
    let kept = Kept()
    try await withEnds(.unix, server: keepingRouter(kept)) { (ends: Ends) async throws in
      let tensor = try await ends.client.allocate(.float32, [64, 100])
      tensor.withElements(of: Float.self) { $0.update(repeating: 1) }
      let view = tensor.rows(10..<20)
      _ = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor), Attachment(view)])
      #expect(kept.all.map(\.tensor.shape) == [[64, 100], [10, 100]])
      #expect(kept.all[0].tensor.floats.allSatisfy { $0 == 1 })
      // One memory: what is written here is seen there.
      tensor.withElements(of: Float.self) { $0[1000] = 5 }
      #expect(kept.all[0].tensor.floats[1000] == 5)
      #expect(kept.all[1].tensor.floats[0] == 5)
    }
  }

  @Test("a tensor outlives its connection")
  func outlives() async throws {
    let kept = Kept()
    var own: Tensor?
    try await withEnds(.unix, server: keepingRouter(kept)) { (ends: Ends) async throws in
      let tensor = try await ends.client.allocate(.float32, [3000])
      tensor.copyElements(from: ramp([3000]))
      _ = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor)])
      own = tensor
    }
    #expect(kept.all[0].tensor.hasSameBytes(as: ramp([3000])))
    #expect(own?.hasSameBytes(as: ramp([3000])) == true)
    own = nil
    #expect(kept.all[0].tensor.hasSameBytes(as: ramp([3000])))
    kept.dropAll()
  }

  @Test("memory comes back when both sides have let go, whoever is last")
  func release() async throws {
    let kept = Kept()
    try await withEnds(.unix, server: keepingRouter(kept)) { (ends: Ends) async throws in
      var tensor: Tensor? = try await ends.client.allocate(.float32, [5000])
      let arena = try #require(try ends.client.sendArena())
      #expect(arena.usedBytes == 20032)
      for _ in 0..<2 {
        _ = try await ends.client.call(
          Methods.LanguageModel.step, StepRequest(),
          tensors: [tensor].compactMap { $0.map { Attachment($0) } })
      }
      tensor = nil
      #expect(kept.all.count == 2)
      #expect(arena.usedBytes == 20032)
      kept.dropAll()
      try await eventually { arena.usedBytes == 0 }

      // A tensor from elsewhere is copied in, and its copy goes with the receiver's.
      _ = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(),
        tensors: [Attachment(ramp([2000])), Attachment(ramp([3000])), Attachment(ramp([4]))])
      #expect(arena.usedBytes == 8000 + 12032)
      #expect(kept.all.map(\.tensor.count) == [2000, 3000, 4])
      kept.dropAll()
      try await eventually { arena.usedBytes == 0 }

      // One that is never sent goes with its last reference.
      _ = try await ends.client.allocate(.float32, [5000])
      #expect(arena.usedBytes == 0)
    }
  }

  @Test("a full arena makes callers wait until the receiver lets go")
  func full() async throws {
    let kept = Kept()
    try await withEnds(.unix, server: keepingRouter(kept), options: options(arenaBytes: 1 << 20)) {
      (ends: Ends) async throws in
      let client = ends.client
      _ = try await client.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(ramp([200_000]))])

      let late = await failure {
        _ = try await client.allocate(.float32, [100_000], deadline: .after(.milliseconds(30)))
      }
      #expect(late?.code == .deadlineExceeded)
      let lateCall = await failure {
        _ = try await client.call(
          Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(ramp([100_000]))],
          deadline: .after(.milliseconds(30)))
      }
      #expect(lateCall?.code == .deadlineExceeded)
      let cancelled = Task {
        await failure { _ = try await client.allocate(.float32, [100_000]) }
      }
      cancelled.cancel()
      #expect(await cancelled.value?.code == .cancelled)

      // What fits comes through, while nobody waits.
      _ = try await client.allocate(.float32, [10_000])

      let waiting = Task { try await client.allocate(.float32, [100_000]) }
      try await Task.sleep(for: .milliseconds(20))
      kept.dropAll()
      #expect(try await waiting.value.count == 100_000)
    }
  }

  @Test("those who wait are served in order, and a big one is not overtaken")
  func order() throws {
    let arena = try SendArena(byteCount: 4096) { _, _ in }
    var all = try arena.allocateNow(4096)
    #expect(all != nil)
    let big = arena.request(4096)
    let small = arena.request(64)
    #expect(try arena.allocateNow(64) == nil)
    withExtendedLifetime(all) {}
    all = nil
    #expect(big.isResolved)
    #expect(!small.isResolved)
    arena.close(RPCError(.unavailable, "over"))
    #expect(small.isResolved)
    #expect(throws: RPCError(.unavailable, "over")) { _ = try arena.allocateNow(64) }
  }

  @Test("blocks neither overlap nor get lost, in any order of use")
  func blocks() throws {
    let arena = try SendArena(byteCount: 1 << 16) { _, _ in }
    var generator = SeededGenerator(seed: 7)
    var held: [Storage] = []
    for _ in 0..<500 {
      if Bool.random(using: &generator), !held.isEmpty {
        held.remove(at: Int.random(in: held.indices, using: &generator))
      } else if let storage = try arena.allocateNow(Int.random(in: 0...3000, using: &generator)) {
        held.append(storage)
      }
      let ranges = held.map { storage in
        let base = UInt(bitPattern: storage.base)
        return base..<base + UInt(max(storage.byteCount, 1))
      }.sorted { $0.lowerBound < $1.lowerBound }
      for (left, right) in zip(ranges, ranges.dropFirst()) {
        #expect(left.upperBound <= right.lowerBound)
      }
      #expect(ranges.allSatisfy { $0.lowerBound % 64 == 0 })
    }
    held = []
    #expect(arena.usedBytes == 0)
    #expect(try arena.allocateNow(1 << 16) != nil)
  }

  @Test("a tensor larger than the arena is refused by allocate, and sent after its message")
  func tooSmall() async throws {
    try await withEnds(.unix, server: echoRouter(), options: options(arenaBytes: 8192)) {
      (ends: Ends) async throws in
      let error = await failure { _ = try await ends.client.allocate(.float32, [4096]) }
      #expect(error?.code == .resourceExhausted)
      let reply = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(ramp([4096]))])
      #expect(reply.tensors[0].tensor.hasSameBytes(as: ramp([4096])))
    }
  }

  @Test("a shape that is none is refused", arguments: [[-1], [1 << 40, 1 << 40], [1 << 61]])
  func shape(shape: [Int]) async throws {
    try await withEnds(.tcp, server: echoRouter()) { (ends: Ends) async throws in
      let error = await failure { _ = try await ends.client.allocate(.float32, shape) }
      #expect(error?.code == .invalidArgument)
    }
  }

  @Test("without an arena tensors lie on the heap", arguments: TestCarrier.allCases)
  func heap(carrier: TestCarrier) async throws {
    try await withEnds(carrier, server: echoRouter(), options: options(arenaBytes: 0)) {
      (ends: Ends) async throws in
      let tensor = try await ends.client.allocate(.float32, [5000])
      tensor.copyElements(from: ramp([5000]))
      let reply = try await ends.client.call(
        Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(tensor)])
      #expect(reply.tensors[0].tensor.hasSameBytes(as: ramp([5000])))
    }
  }

  @Test("a connection's end fails those who wait for memory")
  func closing() async throws {
    try await withEnds(.unix, server: echoRouter(), options: options(arenaBytes: 8192)) {
      (ends: Ends) async throws in
      let held = try await ends.client.allocate(.uint8, [8192])
      let waiting = Task { await failure { _ = try await ends.client.allocate(.uint8, [64]) } }
      try await Task.sleep(for: .milliseconds(10))
      ends.server.close()
      #expect(await waiting.value?.code == .unavailable)
      withExtendedLifetime(held) {}
    }
  }
}
