import CPlatform
import Messages
import Tensors
import Testing

@testable import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite(.timeLimit(.minutes(2))) struct ServerTests {
  private func error(_ endpoint: Endpoint) -> TransportError? {
    do {
      _ = try Server(endpoint, router: Router())
      return nil
    } catch {
      return error as? TransportError
    }
  }

  @Test("a second server on a live path is refused, and the first goes on")
  func liveSocket() async throws {
    let directory = PrivateDirectory()
    let server = try Server(directory.socket(), router: echoRouter())
    let running = Task { try await server.run() }
    #expect(error(directory.socket()) == .addressInUse("unix:\(directory.path)/s"))
    let connection = try await Connection.connect(
      to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    _ = try await connection.call(Methods.LanguageModel.step, StepRequest())
    connection.close()
    await server.shutDown(grace: .zero)
    try await running.value
    #expect(access("\(directory.path)/s", F_OK) != 0)
    #expect(access("\(directory.path)/s.lock", F_OK) != 0)
    #expect(error(directory.socket()) == nil)
  }

  @Test("the socket of a dead server is replaced")
  func staleSocket() async throws {
    let directory = PrivateDirectory()
    // What a killed process leaves behind: a bound socket that nobody listens on.
    let dead = Descriptor(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
    var address = sockaddr_un()
    #expect(wire_unix_address("\(directory.path)/s", &address) == 0)
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(dead.number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    #expect(bound == 0)
    let refused = await failure {
      _ = try await Connection.connect(
        to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    }
    #expect(refused?.code == .unavailable)
    #expect(refused?.message.contains("nobody serves unix:") == true)
    #expect(error(directory.socket()) == nil)
  }

  @Test("a file that is no socket is left alone")
  func notASocket() {
    let directory = PrivateDirectory()
    let path = "\(directory.path)/s"
    close(open(path, O_CREAT | O_WRONLY, 0o600))
    #expect(error(directory.socket()) == .notASocket(path: path))
    #expect(access(path, F_OK) == 0)
  }

  @Test("a missing directory is made for this user alone")
  func makesDirectory() throws {
    let directory = PrivateDirectory()
    let server = try Server(.unix(path: "\(directory.path)/a/b/s"), router: Router())
    var status = stat()
    #expect(stat("\(directory.path)/a/b", &status) == 0)
    #expect(status.st_mode & 0o777 == 0o700)
    withExtendedLifetime(server) {}
    unlink("\(directory.path)/a/b/s")
    unlink("\(directory.path)/a/b/s.lock")
    rmdir("\(directory.path)/a/b")
    rmdir("\(directory.path)/a")
  }

  @Test("a directory that others may enter is refused")
  func openDirectory() {
    let directory = PrivateDirectory()
    chmod(directory.path, 0o755)
    #expect(
      error(directory.socket())
        == .directoryNotPrivate(path: directory.path, found: "has mode 0755"))
    chmod(directory.path, 0o700)
  }

  @Test("a path that does not fit is refused by both sides")
  func longPath() async throws {
    let path = "/tmp/" + String(repeating: "x", count: 103)
    #expect(error(.unix(path: path)) == .pathTooLong(path: path, byteCount: 108))
    await #expect(throws: TransportError.pathTooLong(path: path, byteCount: 108)) {
      _ = try await Connection.connect(to: .unix(path: path), deadline: .after(.seconds(1)))
    }
  }

  @Test("a directory that cannot be made is an error that says so")
  func unmakeableDirectory() {
    guard case .system(let what, let errno)? = error(.unix(path: "/proc/none/s")) else {
      Issue.record("no system error")
      return
    }
    #expect(what.contains("/proc/none"))
    #expect(errno == ENOENT || errno == EACCES)
    guard case .system(_, ENOTDIR)? = error(.unix(path: "/dev/null/x/s")) else {
      Issue.record("no ENOTDIR")
      return
    }
  }

  @Test(
    "a system's refusal has the status that fits",
    arguments: [
      (ENOSPC, StatusCode.resourceExhausted), (EMFILE, .resourceExhausted),
      (EACCES, .permissionDenied),
      (ENAMETOOLONG, .invalidArgument), (EIO, .unavailable),
    ])
  func systemErrors(number: Int32, code: StatusCode) {
    let error = TransportError.system(what: "making directory /x", errno: number)
    #expect(error.statusCode == code)
    #expect("\(error)" == "making directory /x: \(String(cString: strerror(number)))")
  }

  @Test("a TCP port in use is refused")
  func portInUse() throws {
    let server = try Server(.tcp(host: "127.0.0.1", port: 0), router: Router())
    #expect(error(server.endpoint) == .addressInUse("\(server.endpoint)"))
  }

  @Test("each side refuses the endpoints of the other")
  func wrongSide() async throws {
    #expect(error(.exec(command: "true")) == .wrongSide(endpoint: "exec:true", can: "connected to"))
    await #expect(throws: TransportError.wrongSide(endpoint: "stdio", can: "served")) {
      _ = try await Connection.connect(to: .stdio, deadline: .after(.seconds(1)))
    }
  }

  @Test("shutting down lets calls finish, takes no new ones, and ends the connections")
  func graceful() async throws {
    let directory = PrivateDirectory()
    let events = Notes<String>()
    let release = Waiter<Void>()
    var router = echoRouter()
    router.handle(Methods.LanguageModel.end) { _, _ in
      events.add("began")
      try await release.value(whenCancelled: .cancelled("the test"))
      return Payload(EndReply())
    }
    let server = try Server(directory.socket(), router: router)
    let running = Task { try await server.run() }
    let connection = try await Connection.connect(
      to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    let call = Task { try await connection.call(Methods.LanguageModel.end, EndRequest()) }
    _ = try await events.wait(for: 1)
    let stopping = Task { await server.shutDown(grace: .seconds(60)) }
    try await eventually { !connection.isOpen }
    let refused = await failure {
      _ = try await connection.call(Methods.LanguageModel.step, StepRequest())
    }
    #expect(refused?.code == .unavailable)
    let nobody = await failure {
      _ = try await Connection.connect(
        to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    }
    #expect(nobody?.code == .unavailable)
    release.resolve(.success(()))
    _ = try await call.value
    await stopping.value
    try await running.value
    await connection.closed()
    #expect(server.connectionCount == 0)
  }

  @Test("after the grace, calls are ended")
  func grace() async throws {
    let directory = PrivateDirectory()
    let events = Notes<String>()
    var router = Router()
    router.handle(Methods.LanguageModel.end) { _, _ in
      events.add("began")
      try await Task.sleep(for: .seconds(100))
      return Payload(EndReply())
    }
    let server = try Server(directory.socket(), router: router)
    let running = Task { try await server.run() }
    let connection = try await Connection.connect(
      to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    let call = Task {
      await failure { _ = try await connection.call(Methods.LanguageModel.end, EndRequest()) }
    }
    _ = try await events.wait(for: 1)
    await server.shutDown(grace: .milliseconds(20))
    #expect(await call.value?.code == .unavailable)
    try await running.value
  }

  @Test("cancelling run ends the server")
  func cancelRun() async throws {
    let directory = PrivateDirectory()
    let server = try Server(directory.socket(), router: echoRouter())
    let running = Task { try await server.run() }
    let connection = try await Connection.connect(
      to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    running.cancel()
    try await running.value
    await connection.closed()
    #expect(access("\(directory.path)/s", F_OK) != 0)
  }

  @Test("more connections than allowed are refused")
  func tooManyConnections() async throws {
    let directory = PrivateDirectory()
    let log = Notes<String>()
    var options = ServerOptions()
    options.maximumConnections = 1
    options.connection.log = { log.add($0) }
    let server = try Server(directory.socket(), router: echoRouter(), options: options)
    Task { try await server.run() }
    let first = try await Connection.connect(
      to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    let refused = await failure {
      _ = try await Connection.connect(
        to: directory.socket(), options: .patient, deadline: .after(.seconds(100)))
    }
    #expect(refused?.code == .unavailable)
    #expect(try await log.wait(for: 1)[0].contains("1 connections are open"))
    _ = try await first.call(Methods.LanguageModel.step, StepRequest())
    first.close()
    await server.shutDown(grace: .zero)
  }

  @Test("connections leave neither descriptors nor threads behind")
  func leaks() async throws {
    // Other tests hold some of both meanwhile: a leak of one in each round would show all the same.
    let rounds = 150
    let descriptors = Self.entries("/proc/self/fd").count
    let threads = Self.wireThreads()
    for _ in 0..<rounds {
      try await withEnds(.unix, server: echoRouter()) { (ends: Ends) async throws in
        _ = try await ends.client.call(
          Methods.LanguageModel.step, StepRequest(), tensors: [Attachment(ramp([2000]))])
      }
    }
    try await eventually {
      Self.entries("/proc/self/fd").count < descriptors + rounds / 2
        && Self.wireThreads() < threads + rounds / 2
    }
  }

  private static func entries(_ path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      names.append(
        withUnsafeBytes(of: entry.pointee.d_name) {
          String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        })
    }
    return names.filter { !$0.hasPrefix(".") }
  }

  private static func wireThreads() -> Int {
    entries("/proc/self/task").filter { thread in
      let file = open("/proc/self/task/\(thread)/comm", O_RDONLY | O_CLOEXEC)
      guard file >= 0 else { return false }
      defer { close(file) }
      var name = [UInt8](repeating: 0, count: 16)
      let count = read(file, &name, name.count)
      return String(decoding: name.prefix(max(count, 0)), as: UTF8.self).hasPrefix("wire")
    }.count
  }
}

@Suite(.timeLimit(.minutes(2))) struct ExecTests {
  @Test("a command is spoken to, and ends with its connection")
  func child() async throws {
    // cat sends the hello back, so it passes for a peer; it calls nothing.
    let connection = try await Connection.connect(
      to: .exec(command: "cat"), options: .patient, deadline: .after(.seconds(100)))
    let process = try #require(connection.carrier.process)
    #expect(kill(process, 0) == 0)
    connection.close()
    await connection.closed()
    #expect(kill(process, 0) != 0)
  }

  @Test("a command that ends at once is UNAVAILABLE")
  func failing() async throws {
    let error = await failure {
      _ = try await Connection.connect(
        to: .exec(command: "false"), options: .patient, deadline: .after(.seconds(100)))
    }
    #expect(error?.code == .unavailable)
    #expect(error?.message.contains("exec:false") == true)
  }

  @Test("a command that does not heed the end of its input is made to end")
  func stubborn() async throws {
    let carrier = try await Dialer.dial(.exec(command: "sleep 60"), deadline: .after(.seconds(100)))
    let connection = Connection(
      carrier: carrier, isInitiator: true, options: .init(), router: Router())
    connection.start()
    connection.close()
    await connection.closed()
    let process = try #require(carrier.process)
    #expect(kill(process, 0) != 0)
  }
}

@Suite struct EndpointTests {
  @Test(
    "reads what it writes",
    arguments: [
      ("unix:/run/x/s", Endpoint.unix(path: "/run/x/s")), ("unix:a b", .unix(path: "a b")),
      ("tcp:localhost:80", .tcp(host: "localhost", port: 80)),
      ("tcp:[::1]:65535", .tcp(host: "::1", port: 65535)), ("stdio", .stdio),
      ("exec:ssh host chiasm-language --stdio", .exec(command: "ssh host chiasm-language --stdio")),
    ])
  func parsing(text: String, endpoint: Endpoint) throws {
    #expect(try Endpoint(parsing: text) == endpoint)
    #expect("\(endpoint)" == text)
  }

  @Test("a TCP endpoint without a host is the loopback address")
  func loopback() throws {
    #expect(try Endpoint(parsing: "tcp::7000") == .tcp(host: "127.0.0.1", port: 7000))
  }

  @Test(
    "refuses other texts",
    arguments: [
      "", "unix:", "exec:", "stdio:", "tcp:", "tcp:host", "tcp:host:", "tcp:host:65536",
      "tcp:host:-1",
      "tcp:[::1:80", "http://x", "/run/s", "unix:a\u{0}b",
    ])
  func refusing(text: String) {
    #expect(throws: TransportError.invalidEndpoint(text)) { try Endpoint(parsing: text) }
  }
}
