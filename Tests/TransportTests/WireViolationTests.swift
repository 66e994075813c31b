import CPlatform
import Messages
import Synchronization
import Tensors
import Testing

@testable import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A peer that writes what it likes.
private final class RawPeer: Sendable {
  let connection: Connection
  let log = Notes<String>()
  private let socket: Descriptor

  init(kind: Carrier.Kind = .unixSocket) throws {
    var numbers: [Int32] = [0, 0]
    #expect(wire_socket_pair(&numbers) == 0)
    socket = Descriptor(numbers[1])
    var options = ConnectionOptions()
    options.log = { [log] in log.add($0) }
    options.maximumHeadBytes = 1 << 16
    options.maximumInlineBytes = 1 << 20
    options.maximumTensors = 4
    options.streamWindow = 4
    connection = Connection(
      carrier: try Carrier(kind: kind, input: numbers[0], output: numbers[0], peer: "raw peer"),
      isInitiator: false, options: options, router: echoRouter())
    connection.start()
  }

  func send(_ bytes: [UInt8], passing descriptors: [Int32] = []) {
    var rest = bytes[...]
    var descriptors = descriptors
    while !rest.isEmpty {
      let sent = rest.withUnsafeBytes { buffer in
        let part = iovec(
          iov_base: UnsafeMutableRawPointer(mutating: buffer.baseAddress), iov_len: buffer.count)
        return withUnsafePointer(to: part) {
          wire_send(socket.number, $0, 1, descriptors.first ?? -1)
        }
      }
      if sent == -Int(EAGAIN) { continue }
      guard sent > 0 else { return }
      if !descriptors.isEmpty { descriptors.removeFirst() }
      rest = rest.dropFirst(sent)
    }
  }

  func send(_ frame: Frame, passing descriptors: [Int32] = []) {
    send(Self.bytes(frame), passing: descriptors)
  }

  static func bytes(_ frame: Frame) -> [UInt8] {
    let head = frame.encoded()
    return [
      0, 0, UInt8(head.count >> 16 & 255), UInt8(head.count >> 8 & 255), UInt8(head.count & 255),
    ]
      + head
  }

  func hello() { send(Frame(kind: .hello, version: 1, acceptsArena: true, streamWindow: 4)) }

  /// Shares a sealed arena; `claimed` is what the frame says.
  func shareArena(byteCount: Int = 65536, claimed: UInt64? = nil, sealed: Bool = true) {
    let memory = Descriptor(wire_memory_create("test", byteCount))
    if sealed { #expect(wire_memory_seal(memory.number) == 0) }
    send(
      Frame(kind: .arena, arenaByteCount: claimed ?? UInt64(byteCount)), passing: [memory.number])
  }

  func request(_ tensors: [TensorRef], call: UInt64 = 1) {
    send(
      Frame(
        kind: .request, call: call, method: Methods.LanguageModel.step.name, message: [],
        tensors: tensors))
  }

  /// Waits for the connection's end and checks why.
  func expectEnd(_ violation: WireViolation, _ location: SourceLocation = #_sourceLocation)
    async throws
  {
    await connection.closed()
    #expect(connection.closeReason?.code == .unavailable, sourceLocation: location)
    #expect(
      connection.closeReason?.message == "raw peer broke the protocol: \(violation)",
      sourceLocation: location)
    #expect(
      log.all == ["connection closed: raw peer broke the protocol: \(violation)"],
      sourceLocation: location)
  }
}

private func arenaTensor(_ offset: Int, _ count: Int, type: ScalarType = .uint8) -> TensorRef {
  TensorRef(
    scalarType: type, shape: [count], byteCount: count * type.byteCount, arenaOffset: offset)
}

@Suite(.timeLimit(.minutes(2))) struct WireViolationTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let violation: WireViolation
    let act: @Sendable (FriendlyPeer) -> Void
    var testDescription: String { "\(violation)" }
  }

  /// What a test case may do.
  struct FriendlyPeer {
    fileprivate let peer: RawPeer
  }

  static let cases: [Case] = [
    Case(violation: .flag(1)) { $0.peer.send([1, 0, 0, 0, 0]) },
    Case(violation: .flag(71)) { $0.peer.send(Array("GET / HTTP/1.1\r\n\r\n".utf8)) },
    Case(violation: .headTooLong(65537, limit: 65536)) { $0.peer.send([0, 0, 1, 0, 1]) },
    Case(violation: .headTooLong(Int(UInt32.max), limit: 65536)) {
      $0.peer.send([0, 255, 255, 255, 255])
    },
    Case(violation: .undecodable(.malformed(message: "Frame", byteCount: 1))) {
      $0.peer.send([0, 0, 0, 0, 1, 0xFF])
    },
    Case(violation: .undecodable(.unknownEnumValue(field: "Frame.kind", value: 77))) {
      $0.peer.send([0, 0, 0, 0, 2, 8, 77])
    },
    Case(violation: .noHello(.request)) { $0.peer.request([]) },
    Case(violation: .version(2)) { $0.peer.send(Frame(kind: .hello, version: 2)) },
    Case(violation: .helloTwice) {
      $0.peer.hello()
      $0.peer.hello()
    },
    Case(violation: .unexpectedFrame(.unspecified)) {
      $0.peer.hello()
      $0.peer.send(Frame())
    },
    Case(violation: .callNumber(0, .request)) {
      $0.peer.hello()
      $0.peer.request([], call: 0)
    },
    Case(violation: .callNumber(2, .request)) {
      $0.peer.hello()
      $0.peer.request([], call: 2)
    },
    Case(violation: .callNumber(2, .response)) {
      $0.peer.hello()
      $0.peer.send(Frame(kind: .response, call: 2))
    },
    Case(violation: .callNumber(1, .status)) {
      $0.peer.hello()
      $0.peer.send(Frame(kind: .status, call: 1))
    },
    Case(violation: .tooManyTensors(5, limit: 4)) {
      $0.peer.hello()
      $0.peer.request(
        Array(repeating: TensorRef(scalarType: .uint8, shape: [0], byteCount: 0), count: 5))
    },
    Case(violation: .rank(9)) {
      $0.peer.hello()
      $0.peer.request([
        TensorRef(scalarType: .uint8, shape: Array(repeating: 1, count: 9), byteCount: 1)
      ])
    },
    Case(violation: .byteCount(11, shape: [3])) {
      $0.peer.hello()
      $0.peer.request([TensorRef(scalarType: .float32, shape: [3], byteCount: 11)])
    },
    Case(violation: .byteCount(0, shape: [1 << 62, 4])) {
      $0.peer.hello()
      $0.peer.request([TensorRef(scalarType: .uint8, shape: [1 << 62, 4], byteCount: 0)])
    },
    Case(violation: .inlineBytes((1 << 20) + 1, limit: 1 << 20)) {
      $0.peer.hello()
      $0.peer.request([
        TensorRef(scalarType: .uint8, shape: [(1 << 20) + 1], byteCount: (1 << 20) + 1)
      ])
    },
    Case(violation: .inlineBytes(1_200_000, limit: 1 << 20)) {
      $0.peer.hello()
      $0.peer.request(
        Array(
          repeating: TensorRef(scalarType: .uint8, shape: [600_000], byteCount: 600_000), count: 2))
    },
    Case(violation: .noArena) {
      $0.peer.hello()
      $0.peer.request([arenaTensor(0, 64)])
    },
    Case(violation: .arenaWithoutDescriptor) {
      $0.peer.hello()
      $0.peer.send(Frame(kind: .arena, arenaByteCount: 65536))
    },
    Case(violation: .arenaTwice) {
      $0.peer.hello()
      $0.peer.shareArena()
      $0.peer.shareArena()
    },
    Case(violation: .arenaNotSealed(errno: EPERM)) {
      $0.peer.hello()
      $0.peer.shareArena(sealed: false)
    },
    Case(violation: .arenaNotSealed(errno: ERANGE)) {
      $0.peer.hello()
      $0.peer.shareArena(claimed: 1 << 20)
    },
    Case(violation: .arenaSize(0, limit: 1 << 36)) {
      $0.peer.hello()
      $0.peer.shareArena(claimed: 0)
    },
    Case(violation: .arenaSize(.max, limit: 1 << 36)) {
      $0.peer.hello()
      $0.peer.shareArena(claimed: .max)
    },
    Case(violation: .arenaNotSealed(errno: EINVAL)) {
      $0.peer.hello()
      let file = Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC))
      $0.peer.send(Frame(kind: .arena, arenaByteCount: 4096), passing: [file.number])
    },
    Case(violation: .outsideArena(offset: 65536 - 63, byteCount: 64, arena: 65536)) {
      $0.peer.hello()
      $0.peer.shareArena()
      $0.peer.request([arenaTensor(65536 - 63, 64)])
    },
    Case(violation: .outsideArena(offset: Int.max, byteCount: 64, arena: 65536)) {
      $0.peer.hello()
      $0.peer.shareArena()
      $0.peer.request([arenaTensor(Int.max, 64)])
    },
    Case(violation: .outsideArena(offset: 0, byteCount: 65537, arena: 65536)) {
      $0.peer.hello()
      $0.peer.shareArena()
      $0.peer.request([arenaTensor(0, 65537)])
    },
    Case(violation: .misaligned(offset: 2)) {
      $0.peer.hello()
      $0.peer.shareArena()
      $0.peer.request([arenaTensor(2, 16, type: .float32)])
    },
    Case(violation: .released(offset: 64)) {
      $0.peer.hello()
      $0.peer.send(Frame(kind: .release, released: [64]))
    },
    Case(violation: .descriptors) {
      $0.peer.hello()
      let file = Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC))
      $0.peer.send(Frame(kind: .cancel, call: 1), passing: [file.number])
      $0.peer.send(Frame(kind: .cancel, call: 1))
    },
  ]

  @Test("ends that connection, says why once, and harms nothing else", arguments: cases)
  func violation(test: Case) async throws {
    let bystander = try RawPeer()
    bystander.hello()
    let peer = try RawPeer()
    test.act(FriendlyPeer(peer: peer))
    try await peer.expectEnd(test.violation)
    try await eventually { if case .open = bystander.phase { true } else { false } }
    bystander.connection.close()
    await bystander.connection.closed()
    #expect(bystander.log.all.isEmpty)
  }

  @Test("a call number in use cannot be used again")
  func duplicateCall() async throws {
    let peer = try RawPeer()
    peer.hello()
    let started = Notes<Void>()
    _ = started
    // Not answered while its inline tensor is missing is not enough: the request must be at work.
    peer.connection.state.withLock {
      $0.incoming[7] = IncomingCall(number: 7, method: "m", deadline: nil, window: 4)
    }
    peer.request([], call: 7)
    try await peer.expectEnd(.callNumber(7, .request))
  }

  @Test("a tensor that was given back cannot be given back again")
  func doubleRelease() async throws {
    let peer = try RawPeer()
    peer.hello()
    try await eventually { if case .open = peer.phase { true } else { false } }
    let tensor = try await peer.connection.allocate(.uint8, [10_000])
    let arena = try #require(try peer.connection.sendArena())
    let offset = UInt64(arena.addReference(to: tensor))
    peer.send(Frame(kind: .release, released: [offset]))
    peer.send(Frame(kind: .release, released: [offset]))
    try await peer.expectEnd(.released(offset: offset))
  }

  @Test("a stream's sender cannot overrun its window, nor its receiver grant more than it")
  func windows() async throws {
    let sender = try RawPeer()
    sender.hello()
    try await eventually { if case .open = sender.phase { true } else { false } }
    let exchange = try await sender.connection.begin("m", RawPayload(message: []))
    for _ in 0..<5 { sender.send(Frame(kind: .response, call: 2, message: [])) }
    try await sender.expectEnd(.streamOverrun(2))
    withExtendedLifetime(exchange) {}

    let receiver = try RawPeer()
    receiver.hello()
    try await eventually { if case .open = receiver.phase { true } else { false } }
    receiver.connection.state.withLock {
      $0.incoming[7] = IncomingCall(number: 7, method: "m", deadline: nil, window: 4)
    }
    receiver.send(Frame(kind: .credit, call: 7, credit: 1))
    try await receiver.expectEnd(.credit(7))
  }

  @Test("a peer that breaks the protocol is told why")
  func reasonTravels() async throws {
    let (one, two) = try Dialer.pair()
    var quiet = ConnectionOptions()
    quiet.log = { _ in }
    let good = Connection(carrier: one, isInitiator: false, options: quiet, router: Router())
    let bad = Connection(carrier: two, isInitiator: true, options: quiet, router: Router())
    good.start()
    bad.start()
    try await bad.ready.value(whenCancelled: .cancelled("the test"))
    bad.outbox.send(Frame(kind: .hello, version: 1))
    await bad.closed()
    #expect(bad.closeReason?.message.contains("a second hello") == true)
  }

  @Test("a length that lies costs no memory")
  func lyingLength() async throws {
    let before = residentBytes()
    let peers = try (0..<8).map { _ in try RawPeer() }
    for peer in peers {
      peer.hello()
      peer.request([TensorRef(scalarType: .uint8, shape: [1 << 20], byteCount: 1 << 20)])
      peer.send([0, 0, 0])
    }
    let big = try withOptions()
    big.0.send([0, 0, 0])
    try await Task.sleep(for: .milliseconds(50))
    #expect(residentBytes() - before < 256 << 20)
    for peer in peers { peer.connection.close() }
    big.1.close()
  }

  /// A connection that was promised 1 GiB.
  private func withOptions() throws -> (RawPeerSocket, Connection) {
    var numbers: [Int32] = [0, 0]
    #expect(wire_socket_pair(&numbers) == 0)
    let connection = Connection(
      carrier: try Carrier(kind: .unixSocket, input: numbers[0], output: numbers[0], peer: "raw"),
      isInitiator: false, options: ConnectionOptions(), router: echoRouter())
    connection.start()
    let socket = RawPeerSocket(descriptor: Descriptor(numbers[1]))
    socket.send(RawPeer.bytes(Frame(kind: .hello, version: 1)))
    socket.send(
      RawPeer.bytes(
        Frame(
          kind: .request, call: 1, method: "m",
          tensors: [TensorRef(scalarType: .uint8, shape: [1 << 30], byteCount: 1 << 30)])))
    return (socket, connection)
  }

  struct RawPeerSocket {
    let descriptor: Descriptor
    func send(_ bytes: [UInt8]) { _ = write(descriptor.number, bytes, bytes.count) }
  }

  private func residentBytes() -> Int {
    var text = [UInt8](repeating: 0, count: 256)
    let file = Descriptor(open("/proc/self/statm", O_RDONLY | O_CLOEXEC))
    let count = read(file.number, &text, text.count)
    let fields = text.prefix(max(count, 0)).split(separator: 32)
    return (Int(String(decoding: fields[1], as: UTF8.self)) ?? 0) * 4096
  }
}

extension RawPeer {
  fileprivate var phase: Connection.Phase { connection.state.withLock { $0.phase } }
}
