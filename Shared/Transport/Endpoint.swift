/// Where a service is, and how to speak to it.
public enum Endpoint: Sendable, Hashable, CustomStringConvertible {
  /// A Unix socket: `unix:PATH`. The fastest: tensors lie in shared memory.
  case unix(path: String)
  /// `tcp:HOST:PORT`; without a host the loopback address. TCP carries neither authentication
  /// nor encryption: whoever can reach the port can use the service. Keep it on the loopback
  /// address or a network of one's own, or go through `exec:ssh …`.
  case tcp(host: String, port: UInt16)
  /// This process's standard input and output: `stdio`. Only to be served.
  case stdio
  /// The standard input and output of a command run by the shell: `exec:COMMAND`. Only to be
  /// connected to; the command ends with the connection.
  case exec(command: String)

  /// - Throws: ``TransportError/invalidEndpoint(_:)``.
  public init(parsing text: String) throws {
    if text == "stdio" {
      self = .stdio
      return
    }
    guard let colon = text.firstIndex(of: ":") else { throw TransportError.invalidEndpoint(text) }
    let rest = text[text.index(after: colon)...]
    switch text[..<colon] {
    case "unix" where !rest.isEmpty && !rest.utf8.contains(0):
      self = .unix(path: String(rest))
    case "exec" where !rest.isEmpty && !rest.utf8.contains(0):
      self = .exec(command: String(rest))
    case "tcp":
      guard let separator = rest.lastIndex(of: ":"),
        let port = UInt16(rest[rest.index(after: separator)...])
      else { throw TransportError.invalidEndpoint(text) }
      var host = rest[..<separator]
      if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
      guard !host.utf8.contains(0), !host.contains("["), !host.contains("]") else {
        throw TransportError.invalidEndpoint(text)
      }
      self = .tcp(host: host.isEmpty ? "127.0.0.1" : String(host), port: port)
    default:
      throw TransportError.invalidEndpoint(text)
    }
  }

  public var description: String {
    switch self {
    case .unix(let path): "unix:\(path)"
    case .tcp(let host, let port):
      host.contains(":") ? "tcp:[\(host)]:\(port)" : "tcp:\(host):\(port)"
    case .stdio: "stdio"
    case .exec(let command): "exec:\(command)"
    }
  }
}
