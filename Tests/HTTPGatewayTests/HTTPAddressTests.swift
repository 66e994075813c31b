import Testing

@testable import HTTPGateway

@Suite struct HTTPAddressTests {
  @Test(arguments: [
    ("127.0.0.1:8000", HTTPOptions.Address.tcp(host: "127.0.0.1", port: 8000), true),
    ("127.8.9.10:1", .tcp(host: "127.8.9.10", port: 1), true),
    ("localhost:0", .tcp(host: "localhost", port: 0), true),
    ("[::1]:80", .tcp(host: "::1", port: 80), true),
    ("unix:/run/a:b", .unix(path: "/run/a:b"), true),
    ("0.0.0.0:8000", .tcp(host: "0.0.0.0", port: 8000), false),
    ("[::]:8000", .tcp(host: "::", port: 8000), false),
    ("10.0.0.1:8000", .tcp(host: "10.0.0.1", port: 8000), false),
    ("127.0.0.1.example.org:80", .tcp(host: "127.0.0.1.example.org", port: 80), false),
    ("127.1:80", .tcp(host: "127.1", port: 80), false),
  ])
  func `an address is read, and known for local or not`(
    text: String, address: HTTPOptions.Address, isLocal: Bool
  ) throws {
    let read = try HTTPOptions.Address(parsing: text)
    #expect(read == address)
    #expect(read.isLocal == isLocal)
  }

  @Test(arguments: ["", "8000", ":8000", "host", "host:", "host:65536", "host:-1", "unix:", "[]:1"])
  func `what is no address is refused by name`(text: String) {
    #expect(throws: (any Error).self) { try HTTPOptions.Address(parsing: text) }
  }
}
