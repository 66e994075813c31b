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

/// Swift Testing has a type of that name, too.
typealias Attachment = Transport.Attachment

/// Lines and other things noted from several threads.
final class Notes<Note: Sendable>: Sendable {
  private let notes = Mutex<[Note]>([])
  func add(_ note: Note) { notes.withLock { $0.append(note) } }
  var all: [Note] { notes.withLock { $0 } }

  /// Waits until there are `count` notes.
  func wait(for count: Int) async throws -> [Note] {
    try await eventually { self.all.count >= count }
    return all
  }
}

struct NotInTime: Error {}

/// Waits until a condition holds that another thread brings about.
func eventually(_ condition: () -> Bool) async throws {
  let deadline = Deadline.after(.seconds(100))
  while !condition() {
    guard !deadline.isPassed else { throw NotInTime() }
    try await Task.sleep(for: .milliseconds(2))
  }
}

/// A directory of mode 0700 that goes with the value.
final class PrivateDirectory: Sendable {
  let path: String

  init() {
    var template = Array("/tmp/wire-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress, let made = mkdtemp(base) else { return "/tmp/none" }
      return String(cString: made)
    }
  }

  func socket(_ name: String = "s") -> Endpoint { .unix(path: "\(path)/\(name)") }

  deinit {
    for name in ["s", "t", "s.lock", "t.lock", "u", "u.lock"] { unlink("\(path)/\(name)") }
    rmdir(path)
  }
}

/// What connections can run over.
enum TestCarrier: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case inProcess, unix, tcp, pipes
  var testDescription: String { rawValue }
}

/// Two connected ends in this process.
struct Ends: Sendable {
  let client: Connection
  let server: Connection
  let host: Server?
  let directory: PrivateDirectory?

  func close() async {
    client.close()
    server.close()
    await host?.shutDown(grace: .zero)
    await client.closed()
    await server.closed()
  }
}

func withEnds(
  _ carrier: TestCarrier, client: Router = .init(), server: Router = .init(),
  options: ConnectionOptions = .patient, _ body: (Ends) async throws -> Void
) async throws {
  let ends: Ends
  switch carrier {
  case .inProcess:
    let pair = try Connection.pair(client: client, server: server, options: options)
    ends = Ends(client: pair.client, server: pair.server, host: nil, directory: nil)
  case .pipes:
    let (one, two) = try pipeCarriers()
    let first = Connection(carrier: one, isInitiator: true, options: options, router: client)
    let second = Connection(carrier: two, isInitiator: false, options: options, router: server)
    first.start()
    second.start()
    try await first.ready.value(whenCancelled: .cancelled("the test"))
    ends = Ends(client: first, server: second, host: nil, directory: nil)
  case .unix, .tcp:
    let directory = PrivateDirectory()
    var serverOptions = ServerOptions()
    serverOptions.connection = options
    let accepted = Notes<Connection>()
    serverOptions.didConnect = { accepted.add($0) }
    let host = try Server(
      carrier == .unix ? directory.socket() : .tcp(host: "127.0.0.1", port: 0), router: server,
      options: serverOptions)
    Task { try await host.run() }
    let connection = try await Connection.connect(
      to: host.endpoint, options: options, router: client, deadline: .after(.seconds(100)))
    ends = Ends(
      client: connection, server: try await accepted.wait(for: 1)[0], host: host,
      directory: directory)
  }
  do {
    try await body(ends)
  } catch {
    await ends.close()
    throw error
  }
  await ends.close()
}

/// Two carriers over a pair of pipes, as between a process and its child.
func pipeCarriers() throws -> (Carrier, Carrier) {
  var one: [Int32] = [0, 0]
  var two: [Int32] = [0, 0]
  #expect(wire_pipe(&one) == 0)
  #expect(wire_pipe(&two) == 0)
  return (
    try Carrier(kind: .pipes, input: one[0], output: two[1], peer: "the child"),
    try Carrier(kind: .pipes, input: two[0], output: one[1], peer: "the parent")
  )
}

/// Answers a step with as many results as it has parts, and its tensors.
func echoRouter() -> Router {
  var router = Router()
  router.handle(Methods.LanguageModel.step) { request, _ in
    Payload(
      StepReply(results: request.message.steps.map { SequenceResult(sequence: $0.sequence) }),
      tensors: request.tensors)
  }
  return router
}

/// The status with which a call fails; nil when it does not.
func failure(_ body: () async throws -> Void) async -> RPCError? {
  do {
    try await body()
    return nil
  } catch {
    return error as? RPCError ?? RPCError(.unknown, "not a status: \(error)")
  }
}

/// Elements that differ from their neighbours, made fast: tests share two threads.
func ramp(_ shape: [Int]) -> Tensor {
  let tensor = Tensor(uninitialized: .float32, shape)
  tensor.withElements(of: Float.self) { elements in
    var filled = min(elements.count, 1021)
    for index in 0..<filled { elements[index] = Float(index) - 500 }
    while filled < elements.count {
      let count = min(filled, elements.count - filled)
      memcpy(tensor.baseAddress + filled * 4, tensor.baseAddress, count * 4)
      filled += count
    }
  }
  return tensor
}

extension Tensor {
  func hasSameBytes(as other: Tensor) -> Bool {
    scalarType == other.scalarType && shape == other.shape
      && memcmp(baseAddress, other.baseAddress, byteCount) == 0
  }
}

extension ConnectionOptions {
  /// For tests that wait for their turn on a busy machine.
  static var patient: ConnectionOptions {
    var options = ConnectionOptions()
    options.handshakeTimeout = .seconds(100)
    return options
  }
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
