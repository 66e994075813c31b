import Glibc
import Testing

@testable import Mesh

/// Services that speak over their standard streams.
extension SupervisorTests {
  /// A socket that somebody listens at; nil when it cannot be had.
  static func listeningSocket(at path: String) -> Int32? {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0, listen(descriptor, 1) == 0 else {
      close(descriptor)
      return nil
    }
    return descriptor
  }

  @Test(.timeLimit(.minutes(1)))
  func `A service that speaks over its standard streams is reached at its socket, to the end`()
    async throws
  {
    let scratch = Scratch()
    let relayed = ServiceProbe(
      check: { _, _ in },
      bridge: { address, reading, writing in
        defer {
          close(reading)
          close(writing)
          unlink(String(address.dropFirst(5)))
        }
        // Something to find at the address.
        let socket = try #require(Self.listeningSocket(at: String(address.dropFirst(5))))
        defer { close(socket) }
        try await Task.sleep(for: .seconds(1000))
      })
    let supervisor = try Self.supervisor(
      scratch,
      [
        .init(name: "far", command: ["sh", "-c", "exec cat", "--stdio"]),
        // Still finds the other's socket when it is asked to stop.
        Self.service(
          "near",
          "trap 'test -S $CHIASM_RUN/far.sock && touch $D/found; exit 0' TERM; "
            + "touch $D/up; while :; do sleep 0.01; done", scratch, healthy: "test -e $D/up",
          after: [.init("far", .started)]),
      ]
    ) { $0.probe = relayed }
    try await supervisor.run { mesh in
      let status = await mesh.snapshot()[0]
      #expect(status.address == "unix:" + scratch.run.socketPath("far"))
      try await Self.until { scratch.exists("run/far.sock") }
    }
    #expect(scratch.exists("found"))
    let events = await Self.collect(supervisor)
    let order = events.compactMap { event -> String? in
      if case .stopping(let service) = event { service } else { nil }
    }
    #expect(order == ["near", "far"])
  }

  @Test(.timeLimit(.minutes(1)))
  func `A bridge that breaks before the service is healthy fails the start`() async throws {
    struct Broken: Error, CustomStringConvertible { let description = "no such wire" }
    let scratch = Scratch()
    let supervisor = try Self.supervisor(
      scratch, [.init(name: "far", command: ["sh", "-c", Self.forever, "--stdio"])]
    ) {
      $0.probe = ServiceProbe(
        check: { _, _ in throw Broken() },
        bridge: { _, reading, writing in
          close(reading)
          close(writing)
          throw Broken()
        })
    }
    await #expect(
      throws: MeshError.notHealthy(
        service: "far", seconds: 0, reason: "its bridge failed: no such wire", lines: [])
    ) { try await supervisor.run { _ in } }
  }

  static func bindSocket(_ path: String) {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    _ = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
