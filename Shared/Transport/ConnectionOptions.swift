#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Bounds of one connection. The defaults suit a mesh on one machine.
public struct ConnectionOptions: Sendable {
  /// Bytes of the shared memory in which this side's tensors travel over a Unix socket; 0: all
  /// tensors follow their message in the stream. Pages are committed when first written.
  public var arenaBytes = 256 << 20
  /// Tensors up to this size follow their message even where there is an arena.
  public var inlineTensorBytes = 4096
  /// Largest head accepted.
  public var maximumHeadBytes = 4 << 20
  /// Most tensors accepted beside one message.
  public var maximumTensors = 64
  /// Most tensor bytes accepted after one head.
  public var maximumInlineBytes = 1 << 30
  /// Largest arena accepted from the peer. Costs address space only.
  public var maximumPeerArenaBytes = 1 << 36
  /// Most calls of the peer that are worked on at a time; further ones are RESOURCE_EXHAUSTED.
  public var maximumCalls = 1024
  /// Responses on their way on one stream before the receiver has taken some.
  public var streamWindow = 64
  /// Bytes waiting to be sent before callers have to wait.
  public var maximumQueuedBytes = 64 << 20
  /// Within this time the peer has to say hello.
  public var handshakeTimeout: Duration = .seconds(10)
  /// Told once why a connection was ended by a peer that broke the protocol.
  public var log: @Sendable (String) -> Void = { line in
    let bytes = Array((line + "\n").utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
  }

  public init() {}
}
