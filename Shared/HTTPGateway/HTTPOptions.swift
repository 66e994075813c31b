import HummingbirdCore
import Messages
import Transport

/// Where the HTTP front listens, whom it lets in, and the bounds of what it reads.
public struct HTTPOptions: Sendable {
  public enum Address: Sendable, Equatable, CustomStringConvertible {
    case tcp(host: String, port: Int)
    case unix(path: String)

    /// Reads HOST:PORT, [HOST]:PORT or unix:PATH.
    ///
    /// - Throws: INVALID_ARGUMENT for anything else.
    public init(parsing text: String) throws {
      if text.hasPrefix("unix:"), text.utf8.count > 5 {
        self = .unix(path: String(text.dropFirst(5)))
        return
      }
      guard let colon = text.lastIndex(of: ":"),
        let port = Int(text[text.index(after: colon)...]), (0...65535).contains(port)
      else {
        throw RPCError(
          .invalidArgument, "\(text) is no address for HTTP; give HOST:PORT or unix:PATH")
      }
      var host = text[..<colon]
      if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
      guard !host.isEmpty else {
        throw RPCError(.invalidArgument, "\(text) names no host; give HOST:PORT, as 127.0.0.1:8080")
      }
      self = .tcp(host: String(host), port: port)
    }

    /// Whether only processes of this machine can reach it.
    public var isLocal: Bool {
      switch self {
      case .unix: true
      case .tcp(let host, _): host == "localhost" || host == "::1" || Self.isLoopback(host)
      }
    }

    /// Whether a host is an IPv4 address of 127.0.0.0/8; a name that begins so is none.
    private static func isLoopback(_ host: String) -> Bool {
      let parts = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
      return parts.count == 4 && parts[0] == 127 && !parts.contains(nil)
    }

    public var description: String {
      switch self {
      case .tcp(let host, let port):
        host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)"
      case .unix(let path): "unix:\(path)"
      }
    }

    var bindAddress: BindAddress {
      switch self {
      case .tcp(let host, let port): .hostname(host, port: port)
      case .unix(let path): .unixDomainSocket(path: path)
      }
    }
  }

  public var address: Address
  /// What clients give as their bearer token; nil lets everybody in.
  public var apiKey: String?
  /// Bytes of a request's body.
  public var bodyBytes = 96 << 20
  /// How long a request's body may take to come.
  public var bodyTime = Duration.seconds(60)
  /// How long a connection may say nothing.
  public var idleTime = Duration.seconds(120)
  /// Bytes of all header fields together.
  public var headerBytes = 16 << 10
  public var connections = 10_000
  /// Answers to one request, `n`.
  public var choices = 8
  /// The folder under which `file:` pictures may lie; nil allows none.
  public var mediaFolder: String?

  public init(address: Address) { self.address = address }
}
